"""What there is one of in each run of trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import RunVar

T = TypeVar("T")


def here(var: RunVar[T | None], make: Callable[[], T]) -> T:
    """The one of this run, made when it is asked for first."""
    found = var.get(None)
    if found is None:
        found = make()
        var.set(found)
    return found
