"""A file appears when it is complete, and not before."""

import errno
import os
import stat

import pytest
import trio

from tailrace._core import Batch, Blake3, chunk_records
from tailrace.files import AtomicFile
from tailrace.files.ahead import SYNC_BYTES
from tailrace.files.atomic import BATCH_BYTES


async def test_a_committed_file_is_in_its_place_alone(tmp_path):
    async with AtomicFile(tmp_path / "a") as file:
        await file.write(b"hello ")
        await file.write(memoryview(b"world"))
        assert not (tmp_path / "a").exists()
        await file.commit(mode=0o640, times=(10.5, 20.25))
    found = (tmp_path / "a").stat()
    assert (tmp_path / "a").read_bytes() == b"hello world"
    assert (stat.S_IMODE(found.st_mode), found.st_atime, found.st_mtime) == (0o640, 10.5, 20.25)
    assert os.listdir(tmp_path) == ["a"]


async def test_large_writes_go_through_whole(tmp_path):
    data = os.urandom(3 * BATCH_BYTES + 17)
    async with AtomicFile(tmp_path / "a") as file:
        for begin in range(0, len(data), 700_001):
            await file.write(data[begin : begin + 700_001])
        await file.commit()
    assert (tmp_path / "a").read_bytes() == data


async def test_without_commit_the_old_file_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="broken"):
        async with AtomicFile(tmp_path / "a") as file:
            await file.write(b"new" * BATCH_BYTES)
            raise RuntimeError("broken")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


async def test_a_cancelled_write_leaves_nothing_behind(tmp_path):
    with trio.CancelScope() as scope:
        async with AtomicFile(tmp_path / "a") as file:
            await file.write(b"x")
            scope.cancel()
            await file.write(b"y" * BATCH_BYTES)
    assert scope.cancelled_caught
    assert os.listdir(tmp_path) == []


async def test_a_replaced_file_hands_on_its_mode(tmp_path):
    (tmp_path / "a").write_bytes(b"#!/bin/sh")
    (tmp_path / "a").chmod(0o751)
    async with AtomicFile(tmp_path / "a") as file:
        await file.commit()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o751


async def test_what_is_not_in_its_place_yet_is_for_nobody_else(tmp_path):
    before = os.umask(0o027)
    try:
        async with AtomicFile(tmp_path / "a") as file:
            (draft,) = tmp_path.iterdir()
            assert stat.S_IMODE(draft.stat().st_mode) == 0o600
            await file.commit()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


async def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "outside").write_bytes(b"old")
    (tmp_path / "a").symlink_to("outside")
    async with AtomicFile(tmp_path / "a") as file:
        await file.write(b"new")
        await file.commit()
    assert (tmp_path / "outside").read_bytes() == b"old"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"


async def test_a_directory_in_the_way_is_said_at_once(tmp_path):
    with pytest.raises(IsADirectoryError):
        async with AtomicFile(tmp_path):
            pass


async def test_a_missing_parent_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        async with AtomicFile(tmp_path / "no" / "a"):
            pass


async def test_a_full_disk_is_an_os_error_and_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(_descriptor, _data):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        async with AtomicFile(tmp_path / "a") as file:
            monkeypatch.setattr(os, "write", full)
            await file.write(b"x" * BATCH_BYTES)
            await file.commit()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("through", ["itself", "link"])
async def test_a_pipe_does_not_become_a_file(tmp_path, through):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    target = tmp_path / ("pipe" if through == "itself" else "link")
    with pytest.raises(FileExistsError, match="a pipe"):
        async with AtomicFile(target) as file:
            await file.commit()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


async def test_batches_are_written_and_hashed(tmp_path):
    data, digest = os.urandom(20_000_000), Blake3()
    async with AtomicFile(tmp_path / "file") as file:
        await file.write(data[:5])
        for start in range(5, len(data), 3_000_000):
            await file.write_batch(Batch.parse(chunk_records(data[start : start + 3_000_000])), digest)
        await file.written()
        assert digest.length == len(data) - 5
        await file.commit()
    assert (tmp_path / "file").read_bytes() == data
    digest_of_rest = Blake3()
    digest_of_rest.update(data[5:])
    assert (digest.length, digest.digest()) == (len(data) - 5, digest_of_rest.digest())


async def test_a_batch_that_cannot_be_written_is_an_os_error_with_its_number(tmp_path):
    async with AtomicFile(tmp_path / "file") as file:
        there = os.open("/dev/full", os.O_WRONLY)
        os.dup2(there, file._descriptor)
        os.close(there)
        await file.write_batch(Batch.parse(chunk_records(b"x")), Blake3())
        for said_again in (file.written, file.commit):
            with pytest.raises(OSError, match="No space left on device") as raised:
                await said_again()
            assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_fails_while_more_is_written_is_an_error_of_the_commit(tmp_path, monkeypatch):
    def broken(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        async with AtomicFile(tmp_path / "file") as file:
            await file.write(bytes(SYNC_BYTES))
            await file.commit()
    assert list(tmp_path.iterdir()) == []
