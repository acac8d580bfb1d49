"""Who brings some, again and again, is read in rounds: all of them together, a few hundred times a second.

To be woken costs more than what a moderate stream brings: a hundred of them, each woken by itself, cost twice what one
costs that brings as much. So whoever has just brought some is looked after here next, by one poll for all. Where there
was no round lately the next one is at once: what is alone waits for nobody.
"""

from __future__ import annotations

import select
from typing import Final, final

import trio
from trio.lowlevel import Abort, RunVar

from tailrace.link.here import here

ROUND_S: Final = 0.004
"""From one round to the next: nobody sees it, and an interrupt may wait for two."""
_ROUND_MOST: Final = 16
"""How many are read before other tasks have their turn; each at most `transport.ROUND_BYTES`."""


@final
class Rounds:
    """The rounds of one run of trio."""

    def __init__(self) -> None:
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        # Made when somebody waits for the first time.
        self._poll: select.epoll | None = None

    @staticmethod
    def here() -> Rounds:
        """The ones of this run."""
        return here(_rounds, Rounds)

    async def wait_readable(self, fd: int) -> None:
        """Wait for the round that finds something to read, or for `hurry`. One task waits for each socket, and closes
        it. Cancellation changes nothing."""
        if self._poll is None:
            self._poll = select.epoll()
            trio.lowlevel.spawn_system_task(self._run, self._poll)
        try:
            self._poll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
        except FileNotFoundError:
            self._poll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        self._waiting[fd] = trio.lowlevel.current_task()

        def abort(_: object) -> Abort:
            del self._waiting[fd]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def hurry(self, fd: int) -> None:
        """Who waits for this one need not wait any longer, if anybody does."""
        if (task := self._waiting.pop(fd, None)) is not None:
            trio.lowlevel.reschedule(task)

    async def _run(self, poll: select.epoll) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(poll.fileno())
                while found := poll.poll(0, _ROUND_MOST):
                    for fd, _what in found:
                        self.hurry(fd)
                    if len(found) == _ROUND_MOST:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.sleep(ROUND_S)
        finally:
            self._poll = None
            poll.close()


_rounds: RunVar[Rounds | None] = RunVar("tailrace.link.rounds")
