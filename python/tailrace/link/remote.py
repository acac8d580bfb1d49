"""What stands for the master's Impls at a worker: each carries its calls over the wire, as records of a stream.

They belong to one command of one connection, and each is used by one task at a time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast, final

import trio

from tailrace._core import Blake3, Journal, chunk_records, close_record, unpack_record, utime_record
from tailrace.errors import LocalProtocolError, RemoteError, RemoteProtocolError, TailraceError, describe
from tailrace.limits import MIB
from tailrace.link.impl import FileReaderImpl
from tailrace.link.proxy import FileSink, JournalSink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tailrace.link.proxy import JournalSource
    from tailrace.link.pump import Pump
    from tailrace.link.stream import Incoming, Outgoing
    from tailrace.messages import StreamOpened, Value

# How far a hand-written command may be ahead of its master: one stream's window more than what is on its way.
AHEAD_BYTES_MAX = 4 * MIB
TAKE_BYTES = MIB


@final
class RemoteJournal(JournalSink):
    """Stands for the command's `RemoteCommandImpl`."""

    def __init__(self, pump: Pump, nursery: trio.Nursery, command: str, on_free: Callable[[], None]) -> None:
        self._pump = pump
        self._nursery = nursery
        self._command = command
        self._on_free = on_free
        self._own: _OwnJournal | None = None

    async def send(self, source: JournalSource) -> None:
        stream = self._pump.open("journal", self._command, source.released)
        try:
            with stream.scope:
                await _send(stream, source)
            stream.check()
        finally:
            stream.reset("Cancelled: the worker gave up the command")
            self._on_free()

    async def remote_update(self, updates: Mapping[str, object]) -> None:
        """Append to a journal of the command's own. Waits for room, not for the master."""
        own = self._opened()
        # Who writes in a loop must let the pump have its turn, also while there is room.
        await trio.lowlevel.checkpoint()
        await own.wait_room()
        own.append(updates)

    async def remote_complete(self, failure: BaseException | tuple[str, str] | None = None) -> None:
        """End the journal, and wait until the master has all of it safe."""
        own = self._opened()
        own.finish(describe(failure) if isinstance(failure, BaseException) else failure)
        await own.wait_sent()

    def _opened(self) -> _OwnJournal:
        if self._own is None:
            self._own = _OwnJournal()
            self._nursery.start_soon(self._own.run, self)
        return self._own


async def _send(stream: Outgoing, source: JournalSource) -> None:
    journal = source.journal
    while True:
        await stream.wait_room()
        # Read before the rest is moved: what is appended between the two is found in the next turn.
        ended, end = journal.ended, journal.end
        if stream.write_journal(journal):
            await trio.lowlevel.checkpoint()
        elif stream.sent < end:
            raise RemoteProtocolError(f"the journal stands at {end}, and nothing of it can be sent from {stream.sent}")
        elif ended:
            break
        else:
            await source.wait_grown(end)
    await stream.finish()


@final
class _OwnJournal:
    """A journal in memory, for a command that is written by hand with `callRemote`."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._changed = trio.Event()
        self._sent = trio.Event()
        self._error: Exception | None = None

    async def run(self, sink: RemoteJournal) -> None:
        try:
            await sink.send(self)
        except TailraceError as error:
            self._error = error
        finally:
            self._sent.set()
            self._change()

    def append(self, updates: Mapping[str, object]) -> None:
        values: dict[str, Value] = {}
        for key, value in updates.items():
            if key in ("stdout", "stderr", "header"):
                self._log(key, None, value)
            elif key == "log":
                name, data = cast("tuple[str, object]", value)
                self._log("log", name, data)
            else:
                values[key] = cast("Value", value)
        if values:
            self.journal.update(values)
        self._change()

    def finish(self, failure: tuple[str, str] | None) -> None:
        self.journal.finish(failure)
        self._change()

    async def wait_room(self) -> None:
        self._check()
        while self.journal.end - self.journal.begin > AHEAD_BYTES_MAX:
            await self._changed.wait()
            self._check()

    async def wait_sent(self) -> None:
        await self._sent.wait()
        self._check()

    async def wait_grown(self, end: int) -> None:
        while self.journal.end <= end and not self.journal.ended:
            await self._changed.wait()

    def released(self, offset: int) -> None:
        self.journal.release(offset)
        self._change()

    def _log(self, channel: str, name: str | None, data: object) -> None:
        raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        if not isinstance(raw, bytes | bytearray | memoryview):
            raise LocalProtocolError(f"{channel!r} is str or bytes, not {type(data).__name__}")
        if raw:
            self.journal.append(channel, raw, time.time_ns() // 1000, time.monotonic_ns() // 1000, name)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@final
class RemoteWriter(FileSink):
    """Stands for the master's `FileWriterImpl`: an upload."""

    def __init__(self, pump: Pump, command: str) -> None:
        self._pump = pump
        self._command = command
        self._stream: Outgoing | None = None
        self._digest = Blake3()

    async def remote_write(self, data: bytes) -> None:
        stream = self._opened()
        await trio.lowlevel.checkpoint()
        await stream.wait_room()
        self._digest.update(data)
        await stream.write(chunk_records(data))

    async def remote_utime(self, accessed_modified: tuple[float, float]) -> None:
        accessed, modified = accessed_modified
        await self._opened().write(utime_record(accessed, modified))

    async def remote_unpack(self) -> None:
        await self._opened().write(unpack_record())

    async def remote_close(self) -> None:
        stream = self._opened()
        await stream.write(close_record(self._digest.length, self._digest.digest()))
        await stream.finish()

    async def abort(self, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._stream is not None:
            self._stream.reset(reason)

    def _opened(self) -> Outgoing:
        if self._stream is None:
            self._stream = self._pump.open("upload", self._command)
        return self._stream


@final
class RemoteReader(FileReaderImpl):
    """Stands for the master's `FileReaderImpl`: a download."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._stream: Incoming | None = None
        self._opened = trio.Event()
        self._digest = Blake3()
        # What has come and was not read, up to where the stream is taken when it was.
        self._data = memoryview(b"")
        self._end = 0
        self._verified = False

    def on_opened(self, opened: StreamOpened) -> bool:
        """The master sends it. Whether it is wanted."""
        if self._stream is not None:
            return False
        self._stream = self._pump.adopt(opened)
        self._opened.set()
        return True

    def on_lost(self) -> None:
        """The connection is over."""
        self._opened.set()

    async def remote_read(self, maxLength: int) -> bytes:
        if maxLength < 1:
            raise LocalProtocolError(f"read at least 1 byte, not {maxLength!r}")
        await trio.lowlevel.checkpoint()
        stream = await self._wait_opened()
        while not self._data and not self._verified:
            await self._take(stream)
        piece, self._data = self._data[:maxLength], self._data[maxLength:]
        if piece and not self._data and not self._verified:
            stream.settle(self._end, 0)
        return bytes(piece)

    async def remote_close(self) -> None:
        stream = await self._wait_opened()
        if self._verified and not self._data:
            stream.finish(self._end)
        else:
            stream.stop("closed")
        self._pump.drop(stream)

    def abandon(self) -> None:
        """The command is over: the rest is not wanted."""
        if self._stream is not None:
            self._stream.stop("Cancelled: the command ended")
            self._pump.drop(self._stream)

    async def _wait_opened(self) -> Incoming:
        await self._opened.wait()
        if self._stream is None:
            raise self._pump.error(maybe_done=False)
        return self._stream

    async def _take(self, stream: Incoming) -> None:
        batch = await stream.take(TAKE_BYTES)
        if batch is None:
            raise RemoteError("RemoteProtocolError", "the download ended without its close record")
        try:
            data, close = batch.chunk_bytes(), batch.close()
        except RemoteProtocolError as error:
            self._pump.breach(error)
            raise self._pump.lost() from error
        self._digest.update(data)
        self._data, self._end = memoryview(data), batch.end
        if close is not None:
            self._verify(stream, close)
        elif not data:
            stream.settle(self._end, 0)

    def _verify(self, stream: Incoming, close: tuple[int, bytes]) -> None:
        if close != (self._digest.length, self._digest.digest()):
            text = f"{self._digest.length} bytes came, and they are not the {close[0]} that were sent"
            stream.stop(f"LocalProtocolError: {text}")
            raise RemoteError("Damaged", text)
        self._verified = True
