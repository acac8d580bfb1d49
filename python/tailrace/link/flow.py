"""What goes over one session after another: a stream that outlives its connection, seen from either end.

An `Inflow` is what we receive of it, an `Outflow` what we send of a transfer. Each has one task that drives it. A
session that ends is nothing to that task but a pause; who owns the flow says when the next one begins (`opened`,
`resume`), or that there will be none (`fail`). A journal needs no `Outflow`: it is kept where it was written.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from tailrace.errors import ConnectionLost, RemoteError
from tailrace.link.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailrace._core import Batch, Block
    from tailrace.link.stream import Incoming, Outgoing
    from tailrace.messages import StreamProgress

Failure = RemoteError | ConnectionLost
StreamT = TypeVar("StreamT", "Incoming", "Outgoing")


class _Flow(Generic[StreamT]):
    """What both ends have: the stream of the present session, if there is one, and why there will be none."""

    def __init__(self) -> None:
        self.error: Failure | None = None
        """Why it is over, if it failed."""
        self.scope = trio.CancelScope()
        """Cancelled when it fails: run in it what must not go on then."""
        self._stream: StreamT | None = None
        self._changed = Bell()

    @property
    def is_open(self) -> bool:
        """It has a stream in this session."""
        return self._stream is not None

    def suspend(self) -> None:
        """The session is over."""
        self._stream = None

    def fail(self, error: Failure) -> None:
        """It is over, and not well."""
        if self.error is None:
            self.error = error
            self.scope.cancel()
            self._changed.ring()

    def _on_stream_failure(self, error: Failure) -> None:
        # A session that breaks is nothing but a pause: that it was the last one is for the owner to say.
        if isinstance(error, RemoteError):
            self.fail(error)

    async def _wait_stream(self) -> StreamT:
        while True:
            if self.error is not None:
                raise self.error
            if self._stream is not None:
                return self._stream
            await self._changed.wait()


@final
class Inflow(_Flow["Incoming"]):
    """A stream that we receive."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0
        """The offset up to which it was taken: where the next session goes on."""
        self._settled = (0, 0)
        self._stopped: str | None = None
        self._finished = False
        self._is_new = True

    @property
    def began(self) -> bool:
        """It had a stream in some session."""
        return not self._is_new

    def opened(self, stream: Incoming) -> None:
        """The peer opened it, for the first time or again. Once in a session."""
        self._stream, self._is_new = stream, False
        stream.on_error = self._on_stream_failure
        if self._stopped is not None:
            stream.stop(self._stopped)
        elif self._finished:
            stream.finish(self._settled[0])
        elif self.error is None:
            stream.settle(*self._settled)
        self._changed.ring()

    async def take(self, max_bytes: int) -> Batch | None:
        """The next whole records, everything that has arrived up to `max_bytes`; `None` at the end.

        Waits also for the next session. Cancellation changes nothing.

        Raises:
            RemoteError: the sender gave up, or we stopped it.
            ConnectionLost: it is lost for good.
        """
        while True:
            stream = self._stream
            if stream is None or self.error is not None:
                stream = await self._wait_stream()
            try:
                batch = await stream.take(max_bytes)
            except ConnectionLost:
                if stream is self._stream:
                    self.suspend()
                continue
            except RemoteError as error:
                self.fail(error)
                raise
            if batch is not None:
                self.taken = batch.end
            return batch

    def settle(self, taken: int, durable: int) -> None:
        """It was taken up to there, and is safe up to there."""
        self._settled = (taken, durable)
        if self._stream is not None:
            self._stream.settle(taken, durable)

    def finish(self, end: int) -> None:
        """All of it, which ended there, is safe: what the sender waits for, in this session or in the next."""
        self._settled = (end, end)
        self._finished = True
        if self._stream is not None:
            self._stream.finish(end)

    def stop(self, reason: str) -> None:
        """Ask the sender to give up, in this session or in the next, unless it is over already."""
        if self.error is None and not self._finished:
            self._stopped = reason
            self.error = RemoteError("Stopped", reason)
            if self._stream is not None:
                self._stream.stop(reason)


@final
class Outflow(_Flow["Outgoing"]):
    """A transfer that we send. What the peer has not taken is kept: as much as its window lets us have under way."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: deque[bytes | Block] = deque()
        # Absolute offsets: of the first byte that is kept, and of the end of what was written.
        self._begin = self._end = 0
        self._reset: str | None = None
        self._done = False

    @property
    def over(self) -> bool:
        """The peer has all of it, or it failed."""
        return self._done or self.error is not None

    def resume(self, open_: Callable[[int, Callable[[StreamProgress], None]], Outgoing], offset: int = 0) -> None:
        """Go on in a new session, where the peer has taken everything before `offset`. Once in a session.

        `open_(offset, on_progress)` opens the stream there. An offset that is not among what is kept fails the
        transfer.
        """
        if not self._begin <= offset <= self._end:
            self.fail(RemoteError("Damaged", f"the far side wants a transfer from {offset}, and it is no longer there"))
            self._reset = self._reset or "Damaged: it is no longer there"
            offset = self._begin
        self._forget(offset)
        self._stream = stream = open_(offset, self._on_progress)
        stream.on_error = self._on_stream_failure
        if self._reset is not None:
            stream.reset(self._reset)
        elif self._done:
            # Nobody drives it any more, and the peer may not know that all of it has arrived.
            stream.end()
        self._changed.ring()

    async def wait_room(self) -> None:
        """Wait until something can be sent. Cancellation changes nothing. Raises as `write`."""
        while True:
            stream = await self._wait_stream()
            try:
                await stream.wait_room()
            except ConnectionLost:
                self._suspend(stream)
                continue
            return

    async def write(self, data: bytes | Block) -> None:
        """Write all of it, as there is room. Cancelled: some of it may have been written; reset it then.

        Raises:
            RemoteError: the receiver gave up.
            ConnectionLost: it is lost for good, or it was reset.
        """
        self._kept.append(data)
        self._end += len(data)
        await self._push()

    async def finish(self) -> None:
        """End it, and wait until the peer has all of it in its place. Cancelled: it was ended. Raises as `write`."""
        while not self._done:
            await self._push()
            stream = await self._wait_stream()
            try:
                await stream.finish()
            except ConnectionLost:
                self._suspend(stream)
                continue
            self._done = True

    def reset(self, reason: str) -> None:
        """Give up, in this session or in the next, unless it is over already."""
        if not self.over:
            self._reset = reason
            self.fail(ConnectionLost(f"the stream was reset: {reason}"))
            if self._stream is not None:
                self._stream.reset(reason)

    async def _push(self) -> None:
        """Send what the session has not seen yet."""
        while True:
            stream = await self._wait_stream()
            try:
                while (at := stream.sent) < self._end:
                    await stream.write(*self._piece(at))
            except ConnectionLost:
                self._suspend(stream)
                continue
            return

    def _piece(self, offset: int) -> tuple[bytes | Block, int]:
        """The block that is kept from there on, and where in it that is."""
        begin = self._begin
        for block in self._kept:
            if offset < begin + len(block):
                return block, offset - begin
            begin += len(block)
        raise AssertionError(f"nothing is kept at {offset}")

    def _suspend(self, stream: Outgoing) -> None:
        if stream is self._stream:
            self.suspend()

    def _on_progress(self, progress: StreamProgress) -> None:
        self._forget(progress.next)
        self._done |= progress.done

    def _forget(self, taken: int) -> None:
        """The peer has taken everything before: whole blocks of it need not be kept."""
        while self._kept and self._begin + len(self._kept[0]) <= taken:
            self._begin += len(self._kept.popleft())
