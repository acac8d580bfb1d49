"""Work that a thread does in order, while who gives it goes on."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from outcome import Outcome


BYTES_MAX = 4 * 1024 * 1024
"""What may wait: as much as arrives while the disk hesitates."""


@final
class Behind:
    """One thread's work, at most about `bytes_max` behind what was given.

    What it raises is raised by whoever gives or waits from then on, and nothing that was given after it is done.
    To hand over to a thread and back costs more than writing a megabyte: so the thread takes what has come meanwhile,
    and nobody waits for it who has not too much behind.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._work: deque[tuple[int, Callable[[], None]]] = deque()
        # Each is written by one side only: by the task, and by the thread.
        self._given = self._done = 0
        self._running = False
        self._error: BaseException | None = None
        self._advanced = trio.Event()

    async def give(self, size: int, work: Callable[[], None]) -> None:
        """Have this done, which is so many bytes. Waits while too much is behind. Cancelled: it may be done or not."""
        await trio.lowlevel.checkpoint()
        self._check()
        if not self._running:
            await trio.to_thread.current_default_thread_limiter().acquire_on_behalf_of(self)
        self._given += size
        self._work.append((size, work))
        if not self._running:
            self._start()
        while self._running and (advanced := self._next_advance()) is not None:
            await advanced.wait()
        self._check()

    async def wait(self) -> None:
        """Wait until all was done. Cancellation changes nothing."""
        await trio.lowlevel.checkpoint()
        await self._wait_idle()
        self._check()

    async def stop(self) -> None:
        """Have nothing more done, and wait until nothing is: shield it. May be called again."""
        self._work.clear()
        await self._wait_idle()

    async def _wait_idle(self) -> None:
        while self._running:
            self._advanced = trio.Event()
            await self._advanced.wait()

    def _next_advance(self) -> trio.Event | None:
        """What is set when less is behind; `None`: it is little enough."""
        # Made before it is looked: what is done after the look finds it.
        self._advanced = trio.Event()
        return self._advanced if self._given - self._done > self._bytes_max else None

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        """Has a thread work. One of the limiter's tokens is ours."""
        self._running = True
        token = trio.lowlevel.current_trio_token()

        def deliver(outcome: Outcome[None]) -> None:
            # Nobody waits for it when trio has ended.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._rest, outcome)

        trio.lowlevel.start_thread_soon(lambda: self._do(token), deliver, "write behind")

    def _do(self, token: trio.lowlevel.TrioToken) -> None:
        while self._work:
            try:
                size, work = self._work.popleft()
            except IndexError:
                return  # it was stopped a moment ago
            work()
            self._done += size
            if self._given - self._done <= self._bytes_max and not self._advanced.is_set():
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._advanced.set)

    def _rest(self, outcome: Outcome[None]) -> None:
        try:
            outcome.unwrap()
        except BaseException as error:
            self._error = error
            self._work.clear()
        if self._work:
            self._start()
            return
        self._running = False
        self._given = self._done = 0
        trio.to_thread.current_default_thread_limiter().release_on_behalf_of(self)
        self._advanced.set()
