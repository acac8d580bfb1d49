"""What stands for the master's file objects at a worker: each carries its calls over the wire, as records of a stream.

They belong to one command, and each is used by one task at a time. A session that breaks is only a pause to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from tailrace._core import Blake3, chunk_records, close_record, unpack_record, utime_record
from tailrace.errors import LocalProtocolError, RemoteError, RemoteProtocolError
from tailrace.limits import MIB
from tailrace.link.proxy import FileSink, FileSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailrace._core import Batch
    from tailrace.link.flow import Inflow, Outflow
    from tailrace.link.impl import BatchSink, BlockSource

TAKE_BYTES = MIB
# What is written as it comes is not counted in megabytes: all that is there costs one hand-over.
BATCH_BYTES = 4 * MIB


@final
class RemoteWriter(FileSink):
    """Stands for the master's `FileWriterImpl`: an upload."""

    def __init__(self, opened: Callable[[], Outflow]) -> None:
        self._opened = opened
        self._digest = Blake3()
        self._begun = False

    async def remote_write(self, data: bytes) -> None:
        flow = self._flow()
        await trio.lowlevel.checkpoint()
        await flow.wait_room()
        self._digest.update(data)
        await flow.write(chunk_records(data))

    async def send(self, source: BlockSource) -> None:
        flow = self._flow()
        while (block := await source.read_block(self._digest)) is not None:
            await flow.write(block)

    async def remote_utime(self, accessed_modified: tuple[float, float]) -> None:
        accessed, modified = accessed_modified
        await self._flow().write(utime_record(accessed, modified))

    async def remote_unpack(self) -> None:
        await self._flow().write(unpack_record())

    async def remote_close(self) -> None:
        flow = self._flow()
        await flow.write(close_record(self._digest.length, self._digest.digest()))
        await flow.finish()

    async def abort(self, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._begun:
            self._opened().reset(reason)

    def _flow(self) -> Outflow:
        self._begun = True
        return self._opened()


@final
class RemoteReader(FileSource):
    """Stands for the master's `FileReaderImpl`: a download."""

    def __init__(self, flow: Inflow, on_breach: Callable[[RemoteProtocolError], None]) -> None:
        self._flow = flow
        self._on_breach = on_breach
        self._digest = Blake3()
        # What has come and was not read, up to where the stream is taken when it was.
        self._data = memoryview(b"")
        self._end = 0
        self._verified = False

    async def remote_read(self, maxLength: int) -> bytes:
        if maxLength < 1:
            raise LocalProtocolError(f"read at least 1 byte, not {maxLength!r}")
        await trio.lowlevel.checkpoint()
        while not self._data and not self._verified:
            await self._take()
        piece, self._data = self._data[:maxLength], self._data[maxLength:]
        if piece and not self._data and not self._verified:
            self._flow.settle(self._end, 0)
        return bytes(piece)

    async def receive(self, sink: BatchSink) -> None:
        while not self._verified:
            batch = await self._next(BATCH_BYTES)
            close = self._look(batch)
            await sink.write_batch(batch, self._digest)
            self._end = batch.end
            if close is not None:
                await sink.written()
                self._verify(close)
            else:
                self._flow.settle(self._end, 0)

    async def remote_close(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._verified and not self._data:
            self._flow.finish(self._end)
        else:
            self._flow.stop("closed")

    async def _take(self) -> None:
        batch = await self._next(TAKE_BYTES)
        close, data = self._look(batch), batch.chunk_bytes()
        self._digest.update(data)
        self._data, self._end = memoryview(data), batch.end
        if close is not None:
            self._verify(close)
        elif not data:
            self._flow.settle(self._end, 0)

    async def _next(self, max_bytes: int) -> Batch:
        batch = await self._flow.take(max_bytes)
        if batch is None:
            raise RemoteError("RemoteProtocolError", "the download ended without its close record")
        return batch

    def _look(self, batch: Batch) -> tuple[int, bytes] | None:
        """Its close record, if that is in it. None of its records is malformed."""
        try:
            close = batch.close()
            # This looks at the records behind it, too.
            _ = batch.chunk_size
        except RemoteProtocolError as error:
            self._on_breach(error)
            raise RemoteError("RemoteProtocolError", str(error)) from error
        return close

    def _verify(self, close: tuple[int, bytes]) -> None:
        if close != (self._digest.length, self._digest.digest()):
            text = f"{self._digest.length} bytes came, and they are not the {close[0]} that were sent"
            self._flow.stop(f"LocalProtocolError: {text}")
            raise RemoteError("Damaged", text)
        self._verified = True
