"""Calls of code that is not ours: Impls, masters, callbacks, a worker's handler. Only here `Exception` is caught.

What they raise must not end a connection, and must not be mistaken for an error of our own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ParamSpec, TypeVar, final

from tailrace.errors import TailraceError, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("tailrace.link")


@final
class Raised(Exception):
    """Foreign code raised `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return ": ".join(filter(None, describe(self.error)))

    def report(self, what: str, *args: object) -> None:
        """Log it: what may happen to good code (a full disk, a lost peer) in one line, a fault with its traceback."""
        expected = isinstance(self.error, TailraceError | OSError)
        log.error(f"{what}: %s", *args, self, exc_info=None if expected else self.error)


async def call_foreign(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it. Cancellation passes through.

    Raises:
        Raised: it raised an `Exception`.
    """
    try:
        return await function(*args, **kwargs)
    except Exception as error:
        raise Raised(error) from error


def call_back(function: Callable[[], object]) -> None:
    """Call a callback, and log what it raises."""
    try:
        function()
    except Exception:
        log.exception("a callback raised")
