"""Who brings some, again and again, is read in rounds: all of them together, a hundred times a second.

To be woken costs more than what a moderate stream brings: a hundred of them, each woken by itself, cost twice what one
costs that brings as much. So whoever has just brought some is read here next: one poll finds all that have more, and
their tasks sleep on. Where there was no round lately the next one is at once: what is alone waits for nobody.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final, final

import attrs
import trio
from trio.lowlevel import Abort, RunVar

from tailrace.link.here import here

if TYPE_CHECKING:
    from collections.abc import Callable

ROUND_S: Final = 0.008
"""From one round to the next: nobody sees it. Half as much costs a tenth more."""
SOON_S: Final = 0.001
"""The same behind the first pieces of one, where few are read: they may be the begin of a flood, whose sender waits."""
FEW: Final = 10
_ROUND_MOST: Final = 16
"""How many are read before other tasks have their turn; each at most `transport.ROUND_BYTES`."""


@final
class Rounds:
    """The rounds of one run of trio."""

    def __init__(self) -> None:
        self._readers: dict[int, _Reader] = {}
        # Made when somebody is to be read for the first time.
        self._poll: select.epoll | None = None

    @staticmethod
    def here() -> Rounds:
        """The ones of this run."""
        return here(_rounds, Rounds)

    async def read(self, fd: int, on_readable: Callable[[], bool]) -> None:
        """Have `on_readable` called by each round that finds something to read, until it says False, or until `hurry`.

        It does not wait, and what it raises is raised here. One task reads each socket, and closes it. Cancellation
        changes nothing.
        """
        if self._poll is None:
            self._poll = select.epoll()
            trio.lowlevel.spawn_system_task(self._run, self._poll)
        poll = self._poll
        reader = self._readers[fd] = _Reader(trio.lowlevel.current_task(), on_readable)
        poll.register(fd, select.EPOLLIN)

        def abort(_: object) -> Abort:
            del self._readers[fd]
            return Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            poll.unregister(fd)
        if reader.error is not None:
            raise reader.error

    def hurry(self, fd: int) -> None:
        """Who is read here need not be any longer, if anybody is."""
        if (reader := self._readers.pop(fd, None)) is not None:
            trio.lowlevel.reschedule(reader.task)

    def _read(self, fd: int) -> bool:
        """Whether it was the first time for who is read on."""
        # Whose task was woken is read here no more, though it has not run yet.
        if (reader := self._readers.get(fd)) is None:
            return False
        try:
            goes_on = reader.on_readable()
        except Exception as error:
            reader.error, goes_on = error, False
        if not goes_on:
            self.hurry(fd)
            return False
        is_first, reader.is_new = reader.is_new, False
        return is_first

    async def _run(self, poll: select.epoll) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(poll.fileno())
                while found := poll.poll(0, _ROUND_MOST):
                    has_new = False
                    for fd, _what in found:
                        has_new = self._read(fd) or has_new
                    if len(found) == _ROUND_MOST:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.sleep(SOON_S if has_new and len(self._readers) <= FEW else ROUND_S)
        finally:
            self._poll = None
            poll.close()


@final
@attrs.define
class _Reader:
    task: trio.lowlevel.Task
    on_readable: Callable[[], bool]
    is_new: bool = True
    error: Exception | None = None


_rounds: RunVar[Rounds | None] = RunVar("tailrace.link.rounds")
