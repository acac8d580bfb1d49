"""Files at the master: an upload into a `FileWriterImpl`, a download out of a `FileReaderImpl`.

Many blocks are on their way at once, as far as credit goes. What fails is not closed: the far side hears why, and the
command goes on to its end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from tailrace._core import Blake3, chunk_records, close_record
from tailrace.errors import ConnectionLost, LocalProtocolError, RemoteError, RemoteProtocolError
from tailrace.limits import MIB
from tailrace.link.foreign import Raised, call_foreign
from tailrace.link.impl import BatchWriterImpl, BlockReaderImpl
from tailrace.link.proxy import RemoteProxy

if TYPE_CHECKING:
    from tailrace._core import Batch
    from tailrace.link.flow import Inflow, Outflow
    from tailrace.link.lifeline import Lifeline
    from tailrace.link.proxy import FileReaderProxy, FileWriterProxy

log = logging.getLogger("tailrace.link")

# One `remote_write` carries at most this.
WRITE_BYTES_MAX = MIB
# One `write_batch` of ours: all that is there, as a rule.
BATCH_BYTES_MAX = 4 * MIB
# One `remote_read` asks for this: four of them fill a stream's window, so that reading and sending overlap.
READ_BYTES = MIB
# What a worker says when it wants no more of a download, and nothing went wrong.
CLOSED = "closed"


async def receive(line: Lifeline, stream: Inflow, writer: FileWriterProxy, command: str) -> bool:
    """Take an upload to its end. Cancelled, as when the transfer fails meanwhile: the Impl is not closed.

    Whether the Impl was content.
    """
    digest = Blake3()
    end, closed = 0, False
    max_bytes = WRITE_BYTES_MAX if _batch_writer(writer) is None else BATCH_BYTES_MAX
    try:
        with stream.scope:
            while (batch := await stream.take(max_bytes)) is not None:
                closed = await _hand_on(batch, writer, digest)
                end = batch.end
                stream.settle(end, 0)
            if closed:
                # It is in its place: this is what the worker's `close` waits for.
                stream.finish(end)
            else:
                stream.stop("RemoteProtocolError: the upload ended without its close record")
    except Raised as raised:
        raised.report("command %s: its upload failed", command)
        stream.stop(str(raised))
        return False
    except RemoteProtocolError as error:
        # Records that are none.
        line.breach(error)
    except (RemoteError, ConnectionLost):
        pass
    if stream.error is not None:
        log.info("command %s: its upload ended early: %s", command, stream.error)
    return True


async def _hand_on(batch: Batch, writer: FileWriterProxy, digest: Blake3) -> bool:
    """Whether that was the end of it."""
    impl = _batch_writer(writer)
    if impl is not None:
        await call_foreign(impl.write_batch, batch, digest)
    elif data := batch.chunk_bytes():
        digest.update(data)
        await call_foreign(writer.callRemote, "write", data)
    if (times := batch.utime()) is not None:
        await call_foreign(writer.callRemote, "utime", times)
    if batch.unpack:
        await call_foreign(writer.callRemote, "unpack")
    close = batch.close()
    if close is None:
        return False
    if impl is not None:
        await call_foreign(impl.written)
    if close != (digest.length, digest.digest()):
        raise Raised(LocalProtocolError(f"{digest.length} bytes came, and they are not the {close[0]} that were sent"))
    await call_foreign(writer.callRemote, "close")
    return True


async def send(stream: Outflow, reader: FileReaderProxy, command: str) -> bool:
    """Send a download to its end. Cancelled: it is reset, and the Impl is not closed. Whether the Impl was content."""
    try:
        digest = Blake3()
        with stream.scope:
            impl = reader.impl
            if isinstance(impl, BlockReaderImpl) and _is_plain(reader):
                await _send_blocks(stream, impl, digest)
            else:
                await _send_pieces(stream, reader, digest)
            await stream.write(close_record(digest.length, digest.digest()))
            await stream.finish()
    except Raised as raised:
        raised.report("command %s: its download failed", command)
        stream.reset(str(raised))
        return False
    except (RemoteError, ConnectionLost):
        pass
    finally:
        stream.reset("Cancelled: the command ended before its download")
    await _close(stream.error, reader, command)
    return True


async def _send_blocks(stream: Outflow, impl: BlockReaderImpl, digest: Blake3) -> None:
    while (block := await call_foreign(impl.read_block, digest)) is not None:
        await stream.write(block)


async def _send_pieces(stream: Outflow, reader: FileReaderProxy, digest: Blake3) -> None:
    while data := await _read(reader):
        digest.update(data)
        await stream.write(chunk_records(data))
        await stream.wait_room()


def _batch_writer(writer: FileWriterProxy) -> BatchWriterImpl | None:
    """Its Impl, if that is one that takes batches as they come."""
    impl = writer.impl
    return impl if isinstance(impl, BatchWriterImpl) and _is_plain(writer) else None


def _is_plain(proxy: FileReaderProxy | FileWriterProxy) -> bool:
    """Nobody wants to see the calls: a proxy of the master's own may."""
    return type(proxy).callRemote is RemoteProxy.callRemote


async def _read(reader: FileReaderProxy) -> bytes:
    data = await call_foreign(reader.callRemote, "read", READ_BYTES)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise Raised(LocalProtocolError(f"remote_read returned {type(data).__name__}, not bytes"))
    if len(data) > READ_BYTES:
        raise Raised(LocalProtocolError(f"remote_read({READ_BYTES}) returned {len(data)} bytes"))
    return cast("bytes", data)


async def _close(error: RemoteError | ConnectionLost | None, reader: FileReaderProxy, command: str) -> None:
    if error is not None and not (isinstance(error, RemoteError) and error.text == CLOSED):
        log.info("command %s: its download ended early: %s", command, error)
        return
    try:
        await call_foreign(reader.callRemote, "close")
    except Raised as raised:
        raised.report("command %s: remote_close raised", command)
