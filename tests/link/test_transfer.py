"""Uploads and downloads: DESIGN 3.1 about `FileWriterImpl` and `FileReaderImpl`."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from tailrace._core import chunk_records, close_record
from tailrace.errors import ConnectionLost, LocalProtocolError, RemoteError
from tailrace.link.flow import Outflow
from tailrace.link.pump import Pump
from tailrace.link.remote import RemoteWriter

from .farm import Reader, Recorder, Writer, farm

MIB = 1024 * 1024
BODY = bytes(range(256)) * 40_000


def finishing(transfer):
    """A command that is one transfer, and says by `rc` and `stderr` how it went."""

    async def command(proxy, args, interrupted):
        try:
            await transfer(args, interrupted)
        except RemoteError as error:
            await proxy.callRemote("update", {"stderr": str(error), "rc": 1})
        else:
            await proxy.callRemote("update", {"rc": 0})
        await proxy.callRemote("complete")

    return command


@finishing
async def upload(args, interrupted):
    writer = args["writer"]
    for start in range(0, len(BODY), 100_000):
        await writer.callRemote("write", BODY[start : start + 100_000])
    await writer.callRemote("utime", (1.5, 2.5))
    await writer.callRemote("close")


@finishing
async def download(args, interrupted):
    reader, data = args["reader"], bytearray()
    while piece := await reader.callRemote("read", 70_000):
        assert len(piece) <= 70_000
        data += piece
    await reader.callRemote("close")
    assert data == BODY


async def test_an_upload_arrives_in_order_and_is_closed_once():
    async with farm(upload=upload) as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, "upload", {"writer": writer, "blocksize": 4096})
        await impl.wait_done()
        assert impl.merged() == {"rc": 0}
        assert writer.data == BODY
        assert [call[0] for call in writer.calls if call[0] != "write"] == ["utime", "close"]
        assert ("utime", (1.5, 2.5)) in writer.calls
        assert max(call[1] for call in writer.calls if call[0] == "write") <= MIB


async def test_a_directory_is_unpacked_before_it_is_closed():
    @finishing
    async def upload_directory(args, interrupted):
        await args["writer"].callRemote("write", b"a tar stream")
        await args["writer"].callRemote("unpack")
        await args["writer"].callRemote("close")

    async with farm(upload=upload_directory) as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, "upload", {"writer": writer})
        await impl.wait_done()
        assert writer.calls == [("write", 12), ("unpack",), ("close",)]


async def test_an_empty_file_is_uploaded():
    @finishing
    async def upload_nothing(args, interrupted):
        await args["writer"].callRemote("close")

    async with farm(upload=upload_nothing) as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, "upload", {"writer": writer})
        await impl.wait_done()
        assert writer.calls == [("close",)]


async def test_many_blocks_of_an_upload_are_on_their_way():
    async with farm(upload=upload) as f:
        impl, writer = Recorder(), Writer()
        writer.gate = trio.Event()
        await f.start(impl, "upload", {"writer": writer})
        await trio.testing.wait_all_tasks_blocked()
        assert len(writer.calls) == 1
        assert f.conn.statistics().bytes_received > MIB
        writer.gate.set()
        await impl.wait_done()
        assert writer.data == BODY


@pytest.mark.parametrize("method", ["remote_write", "remote_utime", "remote_close"])
async def test_a_writer_that_raises_fails_the_transfer_and_is_not_closed(method, caplog):
    async def broken(*args):
        raise OSError(28, "No space left on device")

    async with farm(upload=upload) as f:
        impl, writer = Recorder(), Writer()
        setattr(writer, method, broken)
        await f.start(impl, "upload", {"writer": writer})
        assert await impl.wait_done() is None
        assert impl.merged()["rc"] == 1
        assert impl.merged()["stderr"] == "OSError: [Errno 28] No space left on device"
        assert ("close",) not in writer.calls
        assert "its upload failed" in caplog.text
        await f.conn.remotePrint("still there")


async def test_an_upload_that_lies_about_itself_is_not_closed(caplog):
    @finishing
    async def lie(args, interrupted):
        stream = args["writer"].impl._opened()
        await stream.write(chunk_records(b"these bytes") + close_record(11, bytes(32)))
        await stream.finish()

    async with farm(lie=lie) as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, "lie", {"writer": writer})
        await impl.wait_done()
        assert impl.merged()["rc"] == 1
        assert "not the 11 that were sent" in impl.merged()["stderr"]
        assert writer.calls == [("write", 11)]


async def test_an_upload_that_ends_without_close_is_not_closed():
    @finishing
    async def forget(args, interrupted):
        stream = args["writer"].impl._opened()
        await stream.write(chunk_records(b"these bytes"))
        await stream.finish()

    async with farm(forget=forget) as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, "forget", {"writer": writer})
        await impl.wait_done()
        assert "without its close record" in impl.merged()["stderr"]
        assert writer.calls == [("write", 11)]


async def test_an_aborted_upload_is_not_closed():
    @finishing
    async def give_up(args, interrupted):
        await args["writer"].callRemote("write", b"begun")
        await trio.testing.wait_all_tasks_blocked()
        await args["writer"].abort("OSError: it is gone")

    async with farm(give_up=give_up) as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, "give_up", {"writer": writer})
        assert await impl.wait_done() is None
        assert writer.calls == [("write", 5)]
        await trio.testing.wait_all_tasks_blocked()
        assert not f.worker._pump._outgoing


async def test_a_stuck_writer_does_not_hold_up_the_end_of_its_command():
    @finishing
    async def give_up(args, interrupted):
        await args["writer"].callRemote("write", b"begun")
        await interrupted.wait()
        await args["writer"].abort("interrupted")

    async with farm(give_up=give_up) as f:
        impl, writer = Recorder(), Writer()
        writer.gate = trio.Event()
        await f.start(impl, "give_up", {"writer": writer})
        await trio.testing.wait_all_tasks_blocked()
        await f.conn.remoteInterruptCommand("b", "1", "enough")
        assert await impl.wait_done() is None
        assert writer.calls == [("write", 5)]


async def test_a_command_without_a_writer_may_not_upload():
    @finishing
    async def sneak(args, interrupted):
        upload = Outflow()
        upload.resume(partial(pump.open, "upload", "1"))
        writer = RemoteWriter(lambda: upload)
        await writer.remote_write(b"x")
        await writer.remote_close()

    async with farm(sneak=sneak) as f:
        pump = f.worker._pump
        assert isinstance(pump, Pump)
        impl = Recorder()
        await f.start(impl, "sneak")
        await impl.wait_done()
        assert "takes no upload" in impl.merged()["stderr"]


async def test_a_download_arrives_verified_and_is_closed_once():
    async with farm(download=download) as f:
        impl, reader = Recorder(), Reader(BODY)
        await f.start(impl, "download", {"reader": reader})
        await impl.wait_done()
        assert impl.merged() == {"rc": 0}
        await trio.testing.wait_all_tasks_blocked()
        assert reader.closed == 1


async def test_an_empty_file_is_downloaded():
    @finishing
    async def download_nothing(args, interrupted):
        assert await args["reader"].callRemote("read", 100) == b""
        assert await args["reader"].callRemote("read", 100) == b""
        await args["reader"].callRemote("close")

    async with farm(download=download_nothing) as f:
        impl, reader = Recorder(), Reader(b"")
        await f.start(impl, "download", {"reader": reader})
        await impl.wait_done()
        assert impl.merged() == {"rc": 0}


async def test_the_master_reads_ahead_up_to_credit():
    @finishing
    async def wait(args, interrupted):
        await interrupted.wait()
        await args["reader"].callRemote("close")

    async with farm(read=wait) as f:
        impl, reader = Recorder(), Reader(bytes(64 * MIB))
        await f.start(impl, "read", {"reader": reader})
        await trio.testing.wait_all_tasks_blocked()
        read_ahead = 64 * MIB - len(reader.data)
        assert MIB <= read_ahead <= 8 * MIB
        await f.conn.remoteInterruptCommand("b", "1", "enough")
        await impl.wait_done()


async def test_a_download_may_be_closed_early():
    @finishing
    async def read_some(args, interrupted):
        assert await args["reader"].callRemote("read", 10) == BODY[:10]
        await args["reader"].callRemote("close")

    async with farm(read=read_some) as f:
        impl, reader = Recorder(), Reader(BODY * 2)
        await f.start(impl, "read", {"reader": reader})
        await impl.wait_done()
        assert impl.merged() == {"rc": 0}
        await trio.testing.wait_all_tasks_blocked()
        assert reader.closed == 1


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("result", [OSError(5, "Input/output error"), "text", b"x" * (2 * MIB)])
async def test_a_reader_that_raises_or_errs_fails_the_transfer(result, after, caplog):
    class Broken(Reader):
        async def remote_read(self, maxLength):
            if len(self.reads) >= after:
                if isinstance(result, OSError):
                    raise result
                return result
            return await super().remote_read(maxLength)

    async with farm(download=download) as f:
        impl, reader = Recorder(), Broken(BODY)
        await f.start(impl, "download", {"reader": reader})
        assert await impl.wait_done() is None
        assert impl.merged()["rc"] == 1
        assert impl.merged()["stderr"].startswith(("OSError: [Errno 5]", "LocalProtocolError: remote_read"))
        assert reader.closed == 0
        assert "its download failed" in caplog.text
        await f.conn.remotePrint("still there")


async def test_a_command_may_end_before_its_download():
    @finishing
    async def ignore(args, interrupted):
        pass

    async with farm(ignore=ignore) as f:
        impl, reader = Recorder(), Reader(BODY)
        await f.start(impl, "ignore", {"reader": reader})
        assert await impl.wait_done() is None
        await trio.testing.wait_all_tasks_blocked()
        assert reader.closed == 0
        assert f.conn.statistics().streams == f.worker.statistics()["streams"] == 0


async def test_transfers_end_with_the_connection():
    async with farm(upload=upload) as f:
        impl, writer = Recorder(), Writer()
        writer.gate = trio.Event()
        await f.start(impl, "upload", {"writer": writer})
        await trio.testing.wait_all_tasks_blocked()
        f.conn.loseConnection()
        assert isinstance(await impl.wait_done(), ConnectionLost)
        assert ("close",) not in writer.calls
        f.nursery.cancel_scope.cancel()


async def test_only_the_documents_messages_exist():
    @finishing
    async def strange(args, interrupted):
        with pytest.raises(LocalProtocolError, match="no message 'purge', only close, unpack, utime, write"):
            await args["writer"].callRemote("purge")

    async with farm(strange=strange) as f:
        impl = Recorder()
        await f.start(impl, "strange", {"writer": Writer()})
        await impl.wait_done()
        assert impl.merged() == {"rc": 0}
