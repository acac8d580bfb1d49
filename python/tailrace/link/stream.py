"""The two ends of a stream, as tasks see them: an `Outgoing` has room to wait for, an `Incoming` has records to take.

Each is driven by one task. The pump tells them what arrived by their `on_…` methods, which never wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from tailrace._core import Block
from tailrace.errors import ConnectionLost, RemoteError, RemoteProtocolError, remote_error
from tailrace.link.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailrace._core import Batch, Journal
    from tailrace.dialects.dialect import Dialect
    from tailrace.messages import Role, StreamOpened, StreamProgress


@final
class Outgoing:
    """A stream that we send."""

    def __init__(
        self,
        dialect: Dialect,
        flush: Callable[[], None],
        role: Role,
        name: str,
        offset: int = 0,
        on_progress: Callable[[StreamProgress], None] | None = None,
        on_reset: Callable[[Outgoing], object] | None = None,
    ) -> None:
        self.number = dialect.open(role, name, offset)
        self.error: RemoteError | ConnectionLost | None = None
        """Why it is over, if it failed."""
        self.on_error: Callable[[RemoteError | ConnectionLost], None] | None = None
        """Told when it fails."""
        self.scope = trio.CancelScope()
        """Cancelled when it fails: run in it what waits for something else meanwhile."""
        self._dialect = dialect
        self._flush = flush
        self._on_progress = on_progress
        self._on_reset = on_reset
        self._ended = self._done = False
        self._woken = Bell()

    @property
    def sent(self) -> int:
        """The offset up to which bytes were written."""
        return self._dialect.sent(self.number)

    @property
    def over(self) -> bool:
        """The peer has all of it, or it failed."""
        return self._done or self.error is not None

    async def wait_room(self) -> int:
        """Wait until something can be written; how much. Cancellation changes nothing."""
        while True:
            self.check()
            if room := self._dialect.room(self.number):
                return room
            await self._woken.wait()

    async def write(self, data: bytes | Block, start: int = 0) -> None:
        """Write all of it from `start` on, as there is room. Cancelled: some of it may have been written; reset the
        stream then."""
        if isinstance(data, Block) and self._dialect.blocks is not None:
            await self.wait_room()
            self._dialect.blocks.write_block(self.number, data, start)
            self._flush()
            return
        view = memoryview(data)[start:]
        while view:
            room = await self.wait_room()
            self._dialect.write(self.number, view[:room])
            self._flush()
            view = view[room:]

    def write_journal(self, journal: Journal) -> int:
        """Write what fits of a journal, from where the stream stands. How many bytes that were."""
        self.check()
        moved = self._dialect.write_journal(self.number, journal)
        if moved:
            self._flush()
        return moved

    async def finish(self) -> None:
        """End the stream, and wait until the peer has all of it safe. Cancelled: it was ended."""
        self.end()
        while not self._done:
            self.check()
            await self._woken.wait()

    def end(self) -> None:
        """All of it was written."""
        self.check()
        self._ended = True
        self._dialect.end(self.number)
        self._flush()

    def reset(self, reason: str) -> None:
        """Give up, unless all of it was written, or it is over already."""
        if not self.over and not self._ended:
            self.error = ConnectionLost(f"the stream was reset: {reason}")
            self._dialect.reset(self.number, reason)
            self._flush()
            if self._on_reset is not None:
                self._on_reset(self)

    def check(self) -> None:
        """Raise why it failed, if it did."""
        if self.error is not None:
            raise self.error

    # what the pump says

    def on_writable(self) -> None:
        self._woken.ring()

    def on_progress(self, progress: StreamProgress) -> None:
        if self._on_progress is not None:
            self._on_progress(progress)
        if progress.done:
            self._done = True
            self._woken.ring()

    def on_failure(self, error: RemoteError | ConnectionLost) -> None:
        if not self.over:
            self.error = error
            self.scope.cancel()
            self._woken.ring()
            if self.on_error is not None:
                self.on_error(error)


@final
class Incoming:
    """A stream that we receive."""

    def __init__(
        self,
        dialect: Dialect,
        flush: Callable[[], None],
        on_breach: Callable[[RemoteProtocolError], None],
        opened: StreamOpened,
        on_over: Callable[[Incoming], None],
    ) -> None:
        self.number = opened.stream
        self.offset = opened.offset
        """Where it began in this session."""
        self.error: RemoteError | ConnectionLost | None = None
        """Why it is over, if it failed."""
        self.on_error: Callable[[RemoteError | ConnectionLost], None] | None = None
        """Told when it fails."""
        self._dialect = dialect
        self._flush = flush
        self._on_breach = on_breach
        self._on_over = on_over
        self._finished = False
        self._woken = Bell()

    async def take(self, max_bytes: int) -> Batch | None:
        """The next whole records, everything that has arrived up to `max_bytes`; `None` at the end.

        Cancellation changes nothing.

        Raises:
            RemoteError: the sender gave up, or we stopped it.
            ConnectionLost: the connection broke.
        """
        while True:
            if self.error is not None:
                raise self.error
            try:
                batch = self._dialect.take(self.number, max_bytes)
            except RemoteProtocolError as error:
                self._on_breach(error)
                continue
            if batch is not None:
                return batch
            if self._dialect.ended(self.number):
                return None
            await self._woken.wait()

    def settle(self, taken: int, durable: int) -> None:
        """It was taken up to there, and is safe up to there. What came before this session counts as taken."""
        if self.error is None:
            self._dialect.settle(self.number, max(taken, self.offset), durable)
            self._flush()

    def finish(self, end: int) -> None:
        """All of it, which ended there, is safe: what the sender waits for."""
        self.settle(end, end)
        self._finished = True
        self._on_over(self)

    def stop(self, reason: str) -> None:
        """Ask the sender to give up, unless it is over already."""
        if self.error is None and not self._finished:
            self.error = RemoteError("Stopped", reason)
            self._dialect.stop(self.number, reason)
            self._flush()
            self._on_over(self)

    # what the pump says

    def on_readable(self) -> None:
        self._woken.ring()

    def on_failure(self, error: RemoteError | ConnectionLost) -> None:
        if self.error is None and not self._finished:
            self.error = error
            self.on_readable()
            if self.on_error is not None:
                self.on_error(error)


def error_of_reason(reason: str) -> RemoteError:
    """The error that a RESET or a STOP speaks of: `Type: text`, as `describe` made it."""
    kind, colon, text = reason.partition(": ")
    return remote_error(kind, text) if colon else RemoteError("Stopped", reason)
