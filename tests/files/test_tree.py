"""A directory becomes a tar stream that others can read."""

import io
import os
import socket
import tarfile
from contextlib import aclosing

import pytest

from tailrace.files import pack
from tailrace.files.tree import PIECE_BYTES

from .archives import snapshot

MIB = 1 << 20


async def packed(directory, *args):
    async with aclosing(pack(directory, *args)) as stream:
        return [piece async for piece in stream]


def unpacked(data, target, mode="r:"):
    with tarfile.open(fileobj=io.BytesIO(data), mode=mode) as tar:
        tar.extractall(target, filter="fully_trusted")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a" / "small").write_bytes(b"small")
    (root / "a" / "nothing").write_bytes(b"")
    (root / "a" / "b" / "large").write_bytes(os.urandom(2 * MIB + 5))
    (root / "a" / ("n" * 200)).write_bytes(b"long name")
    (root / "a" / "grüße €").write_bytes(b"utf-8")
    (root / "script").write_bytes(b"#!/bin/sh")
    (root / "script").chmod(0o755)
    (root / "link").symlink_to("a/small")
    os.link(root / "script", root / "second")
    os.utime(root / "script", (1, 1_600_000_000))
    return root


@pytest.mark.parametrize("compress", [None, "gz", "bz2"])
async def test_python_reads_what_is_packed(tree, tmp_path, compress):
    unpacked(b"".join(await packed(tree, compress)), tmp_path / "out", f"r:{compress or ''}")
    assert snapshot(tmp_path / "out") == snapshot(tree)
    assert (tmp_path / "out" / "script").stat().st_mtime == 1_600_000_000
    assert (tmp_path / "out" / "second").samefile(tmp_path / "out" / "script")


async def test_names_that_are_no_text_are_kept(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    (root / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    (root / os.fsdecode(b"\xff" * 120)).write_bytes(b"y")
    unpacked(b"".join(await packed(root)), tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(root)


async def test_large_files_come_in_pieces(tree):
    assert max(map(len, await packed(tree))) < PIECE_BYTES + 2048


async def test_sockets_and_pipes_are_skipped_and_noted(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    skipped = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        data = b"".join(await packed(tmp_path, None, skipped))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["file"]
    assert skipped == [b"pipe", b"socket"]


async def test_an_empty_directory_is_an_archive(tmp_path):
    with tarfile.open(fileobj=io.BytesIO(b"".join(await packed(tmp_path)))) as tar:
        assert tar.getnames() == []


async def test_what_is_no_directory_is_an_os_error(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotADirectoryError):
        await packed(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        await packed(tmp_path / "missing")


async def test_a_file_that_shrinks_is_an_os_error(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * (3 * MIB))
    with pytest.raises(OSError, match="file shrank"):
        async with aclosing(pack(tmp_path)) as stream:
            async for _ in stream:
                os.truncate(tmp_path / "file", MIB)


async def test_leaving_early_closes_everything(tree):
    before = os.listdir("/proc/self/fd")
    async with aclosing(pack(tree)) as stream:
        async for _ in stream:
            break
    assert len(os.listdir("/proc/self/fd")) == len(before)
