"""What becomes of a log whose disk is full: said once for all runs, and waited for."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

if TYPE_CHECKING:
    from tailrace.errors import StoreError

logger = logging.getLogger("tailrace.logs")

WhenFull: TypeAlias = Literal["wait", "gap"]
"""What a run does while the disk of its log is full. `wait`: nothing is taken from its worker, and so its child waits.
`gap`: it goes on, and what does not fit is left out of its log."""

RETRY_S: Final = 1.0
"""How often it is tried whether there is room again. Nobody clears a disk in less, and a try costs nearly nothing."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: StoreError) -> bool:
    """Whether the same may succeed when somebody has made room."""
    return error.errno in _FULL


def is_disks(error: StoreError) -> bool:
    """Whether it is the disk's fault, and not the caller's."""
    return error.errno is not None


@final
class Room:
    """Whether a store's disk has room, as far as its writers have found."""

    def __init__(self, policy: WhenFull) -> None:
        self.policy: WhenFull = policy
        self._is_full = False

    def none(self, error: StoreError) -> None:
        """A writer has found none."""
        if not self._is_full:
            self._is_full = True
            then = "runs wait until there is room" if self.policy == "wait" else "logs will have gaps"
            logger.warning("%s; %s", error, then)

    def some(self) -> None:
        """A writer has found some."""
        if self._is_full:
            self._is_full = False
            logger.warning("there is room for logs again")
