from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile

import pytest
import trio
import trio.testing

from tailrace.errors import RemoteError
from tailrace.link import FileReaderProxy, FileWriterProxy

BIG = os.urandom(3_500_000)


def names(writer):
    return [call[0] for call in writer.calls]


def tar_of(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


# ---------------------------------------------------------------- uploadFile


@pytest.mark.parametrize("data", [b"", b"x", BIG])
async def test_an_upload_arrives_whole_and_is_closed_last(desk, data):
    desk.dir.joinpath("file").write_bytes(data)
    writer = desk.Writer()
    report = await desk.run("uploadFile", workersrc="file", writer=writer, blocksize=16384, maxsize=None)
    assert (report.rc, writer.data) == (0, data)
    assert names(writer)[-1] == "close"
    assert writer.aborted is None


async def test_the_times_come_before_the_close(desk):
    file = desk.dir / "sub" / "file"
    file.parent.mkdir()
    file.write_text("x")
    os.utime(file, (11, 22))
    writer = desk.Writer()
    await desk.run("uploadFile", slavesrc="file", workdir="sub", writer=writer, keepstamp=True)
    assert writer.calls[-2:] == [("utime", (11, 22)), ("close",)]


async def test_an_upload_that_is_too_large_moves_nothing(desk):
    desk.dir.joinpath("file").write_bytes(BIG)
    writer = desk.Writer()
    report = await desk.run("uploadFile", workersrc="file", writer=writer, maxsize=len(BIG) - 1)
    assert report.rc == 1
    assert b"maxsize" in report.stderr
    assert "close" not in names(writer)
    assert "maxsize" in writer.aborted
    assert (await desk.run("uploadFile", workersrc="file", writer=desk.Writer(), maxsize=len(BIG))).rc == 0


@pytest.mark.parametrize(("make", "word"), [(lambda path: None, b"No such file"), (os.mkdir, b"Is a directory")])
async def test_an_upload_that_cannot_be_read_says_so_in_one_line(desk, make, word):
    make(desk.dir / "file")
    writer = desk.Writer()
    report = await desk.run("uploadFile", workersrc="file", writer=writer)
    assert report.rc == 1
    assert word in report.stderr
    assert report.stderr.count(b"\n") == 1
    assert writer.aborted
    assert writer.calls == []


@pytest.mark.parametrize("message", ["write", "close"])
async def test_an_upload_that_the_master_cannot_take_fails(desk, message):
    desk.dir.joinpath("file").write_bytes(BIG)
    writer = desk.Writer(failing=message)
    report = await desk.run("uploadFile", workersrc="file", writer=writer)
    assert report.rc == 1
    assert b"the master's disk is full" in report.stderr


async def test_an_interrupted_upload_is_aborted(desk):
    desk.dir.joinpath("file").write_bytes(BIG)
    writer = desk.Writer(stuck=True)
    report = await desk.start("uploadFile", {"workersrc": "file", "writer": writer})
    await writer.written.wait()
    await desk.interrupt()
    await desk.ended(report)
    assert (report.rc, report.updates["failure_reason"]) == (1, "interrupted")
    assert writer.aborted == "interrupted"
    assert "close" not in names(writer)


async def test_an_upload_from_a_pipe_that_nobody_opens_can_be_interrupted(desk):
    os.mkfifo(desk.dir / "pipe")
    report = await desk.start("uploadFile", {"workersrc": "pipe", "writer": desk.Writer()})
    await trio.testing.wait_all_tasks_blocked()
    await desk.interrupt()
    await desk.ended(report)
    assert report.rc == 1
    os.close(os.open(desk.dir / "pipe", os.O_WRONLY))  # lets the thread go that was left behind


# ---------------------------------------------------------------- uploadDirectory


@pytest.mark.parametrize(("compress", "unpacked"), [(None, bytes), ("gz", gzip.decompress), ("bz2", bz2.decompress)])
async def test_a_directory_is_one_tar_stream(desk, compress, unpacked):
    tree = desk.dir / "tree"
    tree.joinpath("sub").mkdir(parents=True)
    tree.joinpath("sub/file").write_bytes(BIG)
    tree.joinpath("link").symlink_to("sub/file")
    writer = desk.Writer(takes_compressed=True)
    report = await desk.run("uploadDirectory", workersrc="tree", writer=writer, compress=compress, blocksize=1)
    assert report.rc == 0
    assert names(writer)[-2:] == ["unpack", "close"]
    with tarfile.open(fileobj=io.BytesIO(unpacked(writer.data))) as archive:
        assert archive.extractfile("sub/file").read() == BIG
        assert archive.getmember("link").linkname == "sub/file"


async def test_a_master_of_ours_sees_a_plain_tar_stream(desk):
    desk.dir.joinpath("tree").mkdir()
    desk.dir.joinpath("tree/file").write_text("x")
    os.mkfifo(desk.dir / "tree" / "pipe")
    writer = desk.Writer()
    report = await desk.run("uploadDirectory", workersrc="tree", writer=writer, compress="gz")
    with tarfile.open(fileobj=io.BytesIO(writer.data), mode="r:") as archive:
        assert archive.getnames() == ["file"]
    assert b"skipped, as it is no file: pipe\n" in report.header


async def test_a_directory_that_is_not_there_is_aborted(desk):
    writer = desk.Writer()
    report = await desk.run("uploadDirectory", workersrc="tree", writer=writer)
    assert report.rc == 1
    assert b"No such file" in report.stderr
    assert writer.aborted
    assert "unpack" not in names(writer)


async def test_a_directory_that_is_too_large_is_aborted(desk):
    desk.dir.joinpath("tree").mkdir()
    desk.dir.joinpath("tree/file").write_bytes(BIG)
    writer = desk.Writer()
    report = await desk.run("uploadDirectory", workersrc="tree", writer=writer, maxsize=1_000_000)
    assert report.rc == 1
    assert "maxsize" in writer.aborted
    assert "close" not in names(writer)


# ---------------------------------------------------------------- downloadFile


@pytest.mark.parametrize("data", [b"", b"x", BIG])
async def test_a_download_arrives_whole(desk, data):
    reader = desk.Reader(data)
    report = await desk.run("downloadFile", workerdest="deep/file", reader=reader, mode=0o750, blocksize=16384)
    file = desk.dir / "deep/file"
    assert report.rc == 0
    assert file.read_bytes() == data
    assert file.stat().st_mode & 0o7777 == 0o750
    assert reader.closed


@pytest.mark.parametrize(
    ("args", "reader_args", "word"),
    [
        ({"maxsize": 1000}, {}, b"maxsize"),
        ({}, {"failing_after": 2_000_000}, b"the digests differ"),
    ],
)
async def test_a_download_that_fails_leaves_the_old_file(desk, args, reader_args, word):
    desk.dir.joinpath("file").write_text("old")
    reader = desk.Reader(BIG, **reader_args)
    report = await desk.run("downloadFile", slavedest="file", reader=reader, **args)
    assert report.rc == 1
    assert word in report.stderr
    assert desk.dir.joinpath("file").read_text() == "old"
    assert os.listdir(desk.dir) == ["file"]
    assert reader.closed


async def test_an_interrupted_download_leaves_the_old_file(desk):
    desk.dir.joinpath("file").write_text("old")
    reader = desk.Reader(BIG, stuck=True)
    report = await desk.start("downloadFile", {"workerdest": "file", "reader": reader})
    await reader.asked.wait()
    await trio.testing.wait_all_tasks_blocked(0.05)
    await desk.interrupt()
    await desk.ended(report)
    assert (report.rc, report.updates["failure_reason"]) == (1, "interrupted")
    assert desk.dir.joinpath("file").read_text() == "old"
    assert os.listdir(desk.dir) == ["file"]


async def test_a_download_onto_a_directory_says_so(desk):
    desk.dir.joinpath("file").mkdir()
    report = await desk.run("downloadFile", workerdest="file", reader=desk.Reader(b"x"))
    assert report.rc == 1
    assert report.stderr.count(b"\n") == 1
    assert desk.dir.joinpath("file").is_dir()


# ---------------------------------------------------------------- downloadDirectory


async def test_a_tree_arrives_whole(desk):
    reader = desk.Reader(tar_of({"sub/a": BIG, "b": b"b"}))
    report = await desk.run("downloadDirectory", workerdest="deep/tree", reader=reader)
    assert (report.rc, report.stderr) == (0, b"")
    assert desk.dir.joinpath("deep/tree/sub/a").read_bytes() == BIG
    assert reader.closed


async def test_a_hostile_tree_touches_nothing(desk):
    report = await desk.run("downloadDirectory", workerdest="tree", reader=desk.Reader(tar_of({"../evil": b"x"})))
    assert report.rc == 1
    assert b"evil" in report.stderr
    assert os.listdir(desk.dir) == []


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("name", "args", "word"),
    [
        ("uploadFile", {"writer": 1, "workersrc": "x"}, "'writer'"),
        ("uploadFile", {"writer": None, "workersrc": "x"}, "'writer'"),
        ("uploadFile", {}, "'workersrc'"),
        ("uploadFile", {"workersrc": ""}, "'workersrc'"),
        ("uploadDirectory", {}, "'workersrc'"),
        ("downloadFile", {}, "'workerdest'"),
        ("downloadFile", {"workerdest": "x"}, "'reader'"),
        ("downloadDirectory", {"workerdest": "x"}, "'reader'"),
    ],
)
async def test_bad_arguments_are_refused_at_the_start(desk, name, args, word):
    with pytest.raises(RemoteError) as caught:
        await desk.start(name, args)
    assert name in caught.value.text
    assert word in caught.value.text


async def test_an_unknown_compression_is_refused(desk):
    with pytest.raises(RemoteError, match="'gz'"):
        await desk.start("uploadDirectory", {"workersrc": "x", "writer": desk.Writer(), "compress": "rar"})


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("uploadFile", {"workersrc": "x", "writer": FileReaderProxy(None)}),
        ("uploadDirectory", {"workersrc": "x", "writer": FileReaderProxy(None)}),
        ("downloadFile", {"workerdest": "x", "reader": FileWriterProxy(None)}),
        ("downloadDirectory", {"workerdest": "x", "reader": FileWriterProxy(None)}),
    ],
)
async def test_the_wrong_kind_of_impl_is_refused(desk, name, args):
    with pytest.raises(RemoteError, match=r"must be a File(Writer|Reader)Impl"):
        await desk.run(name, **args)
