"""How much time a process has: whether its loop waits for the world, or the world for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, final

from trio.lowlevel import RunVar

from tailrace.link.here import here

_LOOK_S: Final = 0.5
"""How long one answer holds: what a thread does in less is chance."""
# Of the thread that asks: nanoseconds for which it ran, and for which it waited until a processor was free.
_SCHEDULED: Final = Path("/proc/thread-self/schedstat")


@final
class Leisure:
    """The time of the thread of one run of trio."""

    def __init__(self) -> None:
        self._share = 1.0
        self._looked, self._wanted = _now()

    @staticmethod
    def here() -> Leisure:
        """The one of this run."""
        return here(leisures, Leisure)

    def share(self) -> float:
        """For which part of the last half second, or of what was not asked about, this thread had nothing to do.

        From 0 to 1. What it was ready to do and found no free processor for is not idle either.
        """
        if (took := time.monotonic() - self._looked) >= _LOOK_S:
            now, wanted = _now()
            self._share = min(max(1 - (wanted - self._wanted) / took, 0.0), 1.0)
            self._looked, self._wanted = now, wanted
        return self._share


def _now() -> tuple[float, float]:
    try:
        ran, waited, *_ = _SCHEDULED.read_bytes().split()
    except (OSError, ValueError):
        # A kernel that does not count.
        return time.monotonic(), time.thread_time()
    return time.monotonic(), (int(ran) + int(waited)) / 1e9


leisures: RunVar[Leisure | None] = RunVar("tailrace.link.leisure")
