"""What wakes tasks, for objects of which there are thousands: next to nothing while nobody waits."""

from __future__ import annotations

from typing import final

import trio
from trio.lowlevel import Abort


@final
class Bell:
    """Rings again and again: an `Event` that is replaced whenever it is set."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: set[trio.lowlevel.Task] | None = None

    def ring(self) -> None:
        """Wake all who wait now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, None
            for task in waiting:
                trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Wait for the next time. Cancellation changes nothing."""
        task = trio.lowlevel.current_task()
        if self._waiting is None:
            self._waiting = set()
        waiting = self._waiting
        waiting.add(task)

        def abort(_: object) -> Abort:
            waiting.discard(task)
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


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
