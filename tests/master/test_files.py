"""Files on the master's disk: whole or not at all, and never outside the root."""

from __future__ import annotations

import io
import os
import stat
import tarfile

import pytest

from tailrace.errors import LimitExceeded, LocalProtocolError, UnsafeArchive
from tailrace.master import DiskReader, DiskWriter, TreeReader, TreeWriter


async def read_all(reader):
    pieces = []
    while piece := await reader.remote_read(1 << 16):
        assert len(piece) <= 1 << 16
        pieces.append(piece)
    await reader.remote_close()
    return b"".join(pieces)


def tar_of(**files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


async def test_a_file_is_there_when_it_was_closed_and_not_before(tmp_path):
    writer = DiskWriter(tmp_path, "a/b/c", mode=0o640)
    await writer.remote_write(b"one")
    await writer.remote_write(b"two")
    await writer.remote_utime((1000.0, 2000.0))
    assert not (tmp_path / "a/b/c").exists()
    await writer.remote_close()
    found = (tmp_path / "a/b/c").stat()
    assert (tmp_path / "a/b/c").read_bytes() == b"onetwo"
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o640, 2000.0)


async def test_an_empty_file_is_a_file(tmp_path):
    await DiskWriter(tmp_path, "empty").remote_close()
    assert (tmp_path / "empty").read_bytes() == b""


async def test_a_transfer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "old").write_text("old")
    writer = DiskWriter(tmp_path, "old")
    await writer.remote_write(bytes(3 << 20))
    await writer.aclose()
    await writer.aclose()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


async def test_a_file_that_is_too_large_is_refused(tmp_path):
    writer = DiskWriter(tmp_path, "x", maxsize=5)
    await writer.remote_write(b"12345")
    with pytest.raises(LimitExceeded):
        await writer.remote_write(b"6")
    await writer.aclose()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def root(tmp_path):
    """A root with links that lead out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(outside)
    (root / "link").symlink_to(outside / "secret")
    return root


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "out/x", "", ".", "..", "a/.."])
async def test_no_file_is_written_outside(root, path):
    for writer in (DiskWriter(root, path), TreeWriter(root, path)):
        with pytest.raises(LocalProtocolError):
            await writer.remote_write(b"x")
    assert os.listdir(root.parent / "outside") == ["secret"]
    assert sorted(os.listdir(root.parent)) == ["outside", "root"]


async def test_a_link_in_the_files_place_is_replaced_not_followed(root):
    writer = DiskWriter(root, "link")
    await writer.remote_write(b"new")
    await writer.remote_close()
    assert (root.parent / "outside/secret").read_text() == "secret"
    assert (root / "link").read_text() == "new"
    assert not (root / "link").is_symlink()


@pytest.mark.parametrize("path", ["../outside/secret", "out/secret", "link", "/etc/passwd", "."])
async def test_no_file_is_read_outside(root, path):
    for reader in (DiskReader(root, path), TreeReader(root, path)):
        with pytest.raises(LocalProtocolError):
            await reader.remote_read(10)


async def test_a_file_is_read_as_it_is(tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "x").write_bytes(data)
    assert await read_all(DiskReader(tmp_path, "x")) == data


async def test_a_tree_is_there_when_it_was_closed(tmp_path):
    writer = TreeWriter(tmp_path, "a/tree")
    await writer.remote_write(tar_of(one=b"1", two=b"22"))
    await writer.remote_unpack()
    assert not (tmp_path / "a/tree").exists()
    await writer.remote_close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "a/tree").iterdir()} == {"one": b"1", "two": b"22"}


async def test_a_hostile_tree_changes_nothing(tmp_path):
    writer = TreeWriter(tmp_path, "tree")
    with pytest.raises(UnsafeArchive):
        await writer.remote_write(tar_of(**{"../evil": b"1"}))
        await writer.remote_close()
    await writer.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_a_tree_is_read_as_a_tar_stream(tmp_path):
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/x").write_bytes(b"x" * 100_000)
    data = await read_all(TreeReader(tmp_path, "tree"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.extractfile("sub/x")
        assert member is not None
        assert member.read() == b"x" * 100_000


async def test_a_tree_that_is_read_in_part_can_be_closed(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/x").write_bytes(bytes(5 << 20))
    reader = TreeReader(tmp_path, "tree")
    assert len(await reader.remote_read(100)) == 100
    await reader.remote_close()
    await reader.aclose()
