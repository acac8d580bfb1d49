"""What wakes tasks, for objects of which there are thousands: next to nothing while nobody waits."""

from __future__ import annotations

from typing import final

import trio


@final
class Bell:
    """Rings again and again. An `Event` that is replaced whenever it is set, but made only when somebody waits."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: trio.Event | None = None

    def ring(self) -> None:
        """Wake all who wait now."""
        if self._next is not None:
            self._next.set()
            self._next = None

    async def wait(self) -> None:
        """Wait for the next time. Cancellation changes nothing."""
        if self._next is None:
            self._next = trio.Event()
        await self._next.wait()


@final
class Turn:
    """One task at a time: `async with turn`. Who comes next, of those that wait, is anybody's guess."""

    __slots__ = ("_free", "_taken")

    def __init__(self) -> None:
        self._taken = False
        self._free = Bell()

    async def __aenter__(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._taken:
            await self._free.wait()
        self._taken = True

    async def __aexit__(self, *_: object) -> None:
        self._taken = False
        self._free.ring()
