"""An archive becomes a directory, whole or not at all, and never reaches outside of it."""

import bz2
import contextlib
import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import threading

import pytest
import trio

from tailrace._core import Batch, Blake3, TreeUnpacker, chunk_records
from tailrace.errors import LimitExceeded, UnsafeArchive
from tailrace.files import Unpacker, ahead, pack
from tailrace.files import unpack as unpacking

from .archives import archive, directory, file, hardlink, snapshot, symlink


async def unpack(data, target, step=1 << 16, **options):
    async with Unpacker(target, **options) as tree:
        for begin in range(0, len(data), step):
            await tree.write(data[begin : begin + step])
        await tree.commit()


GOOD = archive(
    directory("d"),
    file("d/f", b"content"),
    file("implied/parent/f", b"x" * 3000),
    symlink("d/link", "../implied"),
    hardlink("again", "d/f"),
    file("n" * 200 + "/" + "m" * 200, b"long"),
    file("./dotted//f", b""),
)


@pytest.fixture
def place(tmp_path):
    """A directory beside which something precious stands."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"precious")
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("step", [7, 1 << 20])
async def test_a_tree_appears_as_python_would_unpack_it(place, format, step):  # noqa: A002
    members = [directory("d"), file("d/f", b"content"), file("n" * 99 + "/" + "m" * 200), symlink("l", "d/f")]
    data = archive(*members, format=format)
    await unpack(data, place / "ours", step)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(place / "theirs", filter="fully_trusted")
    assert snapshot(place / "ours") == snapshot(place / "theirs")


async def test_all_that_is_harmless_is_unpacked(place):
    await unpack(GOOD, place / "out")
    assert (place / "out" / "d" / "link" / "parent" / "f").read_bytes() == b"x" * 3000
    assert (place / "out" / "again").samefile(place / "out" / "d" / "f")
    assert (place / "out" / "dotted" / "f").read_bytes() == b""
    assert os.listdir(place) == ["out"]


async def test_a_loop_of_links_leads_nowhere(place):
    await unpack(archive(symlink("l", "m"), symlink("m", "l/x")), place / "out")
    assert os.readlink(place / "out" / "l") == "m"


@pytest.mark.parametrize(("compress", "press"), [("gz", gzip.compress), ("bz2", bz2.compress)])
async def test_compressed_streams_are_read(place, compress, press):
    await unpack(press(GOOD), place / "out", 100, compress=compress)
    assert (place / "out" / "d" / "f").read_bytes() == b"content"
    for data in (press(GOOD)[:-9], press(GOOD) + b"more", GOOD):
        with pytest.raises(UnsafeArchive):
            await unpack(data, place / "bad", compress=compress)
    assert os.listdir(place) == ["out"]


async def test_what_is_packed_is_unpacked(place, tmp_path):
    await unpack(GOOD, place / "a")
    (place / "a" / "script").write_bytes(b"#!/bin/sh")
    (place / "a" / "script").chmod(0o750)
    os.utime(place / "a" / "script", (5, 1_600_000_000))
    async with Unpacker(place / "b") as tree:
        async for piece in pack(place / "a"):
            await tree.write(piece)
        await tree.commit()
    assert snapshot(place / "b") == snapshot(place / "a")
    assert (place / "b" / "script").stat().st_mtime == 1_600_000_000


async def test_batches_are_unpacked_and_hashed(place):
    data, digest, of_rest = archive(file("d/f", os.urandom(5_000_000)), file("g")), Blake3(), Blake3()
    async with Unpacker(place / "out") as tree:
        await tree.write(data[:700])
        for begin in range(700, len(data), 1_500_000):
            await tree.write_batch(Batch.parse(chunk_records(data[begin : begin + 1_500_000])), digest)
        await tree.written()
        assert digest.length == len(data) - 700
        await tree.commit()
    await unpack(data, place / "pieces")
    assert snapshot(place / "out") == snapshot(place / "pieces")
    of_rest.update(data[700:])
    assert digest.digest() == of_rest.digest()


async def test_what_the_system_refuses_is_an_os_error_with_number_and_path(place):
    async with Unpacker(place / "out") as tree:
        await tree.write_batch(Batch.parse(chunk_records(archive(file("d/" + "n" * 256)))), Blake3())
        for said_again in (tree.written, tree.commit):
            with pytest.raises(OSError, match="File name too long") as raised:
                await said_again()
            assert (raised.value.errno, raised.value.filename) == (errno.ENAMETOOLONG, "d/" + "n" * 256)
    assert os.listdir(place) == []


async def test_a_directory_that_exists_is_merged_file_by_file(place):
    old = archive(file("keep", b"old"), file("d/keep", b"old"), file("d/f", b"old"), symlink("l", "keep"))
    await unpack(old, place / "out")
    await unpack(archive(file("d/f"), file("d/g"), file("e/f"), file("l")), place / "out")
    found = {path: content for path, (_, _, content) in snapshot(place / "out").items() if content is not None}
    assert found == {"keep": b"old", "d/keep": b"old", "d/f": b"new", "d/g": b"new", "e/f": b"new", "l": b"new"}
    assert os.listdir(place) == ["out"]


async def test_set_id_bits_are_dropped(place):
    info = tarfile.TarInfo("f")
    info.mode = 0o6777
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info)
    await unpack(buffer.getvalue(), place / "out")
    assert stat.S_IMODE((place / "out" / "f").stat().st_mode) == 0o777


@pytest.mark.parametrize("mode", [0o640, 0o666, 0o777, 0o400])
async def test_modes_are_the_archives_whatever_a_default_acl_takes(place, mode):
    # u::rwx, g::r-x, o::---
    acl = struct.pack("<I" + "HHI" * 3, 2, *(1, 7, 0xFFFFFFFF), *(4, 5, 0xFFFFFFFF), *(0x20, 0, 0xFFFFFFFF))
    try:
        os.setxattr(place, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("a file system without default ACLs")
    info = tarfile.TarInfo("d/f")
    info.mode = mode
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info)
    await unpack(buffer.getvalue(), place / "out")
    assert stat.S_IMODE((place / "out" / "d" / "f").stat().st_mode) == mode


async def test_buildbots_root_entry_is_the_root(place):
    (place / "src").mkdir()
    (place / "src" / "f").write_bytes(b"x")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(place / "src", "")
    await unpack(buffer.getvalue(), place / "out")
    assert os.listdir(place / "out") == ["f"]


def special(name, kind):
    return archive((name, kind, ""))


def renamed(old, new):
    """An archive of one file whose name in the header is exchanged, the checksum made right again."""
    data = bytearray(archive(file(old), format=tarfile.USTAR_FORMAT))
    data[:100] = new.ljust(100, b"\0")
    return checked(data)


def checked(data):
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def sized(size):
    data = bytearray(archive(file("f", b"abc"), format=tarfile.USTAR_FORMAT))
    data[124:136] = size
    return checked(data)


HOSTILE = {
    "absolute": archive(file("/tmp/evil")),
    "absolute directory": archive(directory("/tmp/evil")),
    "up": archive(file("../outside/evil")),
    "up in the middle": archive(file("a/../../outside/evil")),
    "link out": archive(symlink("l", "../outside")),
    "absolute link": archive(symlink("l", "/etc/passwd")),
    "empty link": archive(symlink("l", "")),
    "write through a link": archive(symlink("l", "../outside"), file("l/evil")),
    "write through a link inside": archive(directory("d"), symlink("l", "d"), file("l/evil")),
    "link through a link": archive(directory("d"), symlink("d/l", ".."), symlink("m", "d/l/../x")),
    "link through a later link": archive(symlink("m", "l/../x"), symlink("l", ".")),
    "hard link out": archive(hardlink("h", "../outside/precious")),
    "absolute hard link": archive(hardlink("h", "/etc/passwd")),
    "hard link to nothing": archive(hardlink("h", "missing")),
    "hard link to a link": archive(symlink("l", "x"), hardlink("h", "l")),
    "hard link through a link": archive(file("d/f"), symlink("l", "d"), hardlink("h", "l/f")),
    "hard link to a directory": archive(directory("d"), hardlink("h", "d")),
    "device": special("dev", tarfile.CHRTYPE),
    "block device": special("dev", tarfile.BLKTYPE),
    "pipe": special("pipe", tarfile.FIFOTYPE),
    "empty name": renamed("f", b""),
    "name of a slash": renamed("f", b"/"),
    "name of a dot": renamed("f", b"."),
    "twice": archive(file("f"), file("f")),
    "file, then link": archive(file("f"), symlink("f", "x")),
    "file, then directory": archive(file("f"), file("f/g")),
    "directory, then link": archive(directory("d"), symlink("d", "x")),
    "link, then directory": archive(symlink("d", "x"), directory("d")),
    "huge": sized(b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7),
    "larger than it can be": sized(b"\x80" + b"\xff" * 11),
    "negative": sized(b"-0000000001\0"),
    "cut in a header": GOOD[:700],
    "cut in the data": archive(file("f", b"x" * 10_000))[:5000],
    "cut before the end": archive(file("f"))[:1024],
    "nothing": b"",
    "garbage": b"garbage" * 1000,
    "bytes behind the end": GOOD + b"x",
    "too deep": archive(file("d/" * 1000 + "f")),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("exists", [False, True])
async def test_a_hostile_archive_is_refused_and_nothing_is_touched(place, name, exists):
    if exists:
        await unpack(archive(file("f", b"old"), file("d/f", b"old")), place / "out")
    before = snapshot(place.parent)
    with pytest.raises(UnsafeArchive):
        await unpack(HOSTILE[name], place / "out")
    assert snapshot(place.parent) == before


async def test_a_name_with_a_nul_in_it_is_refused(place):
    data = archive(file("n" * 101 + "Z"))
    with pytest.raises(UnsafeArchive):
        await unpack(data.replace(b"Z\n", b"\0\n"), place / "out")
    assert os.listdir(place) == []


async def test_two_sizes_for_one_entry_are_refused(place):
    """CVE-2025-62518: one reader takes the pax header's size, the other finds headers in the data."""
    inner = archive(file("smuggled"))
    info = tarfile.TarInfo("f")
    info.size = len(inner)
    info.pax_headers = {"size": str(len(inner))}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info, io.BytesIO(inner))
    data = bytearray(buffer.getvalue())
    await unpack(bytes(data), place / "out")
    head = bytearray(data[1024:])
    head[124:136] = b"00000000000\0"
    with pytest.raises(UnsafeArchive, match="bytes and"):
        await unpack(bytes(data[:1024]) + checked(head), place / "bad")
    assert os.listdir(place) == ["out"]


@pytest.mark.parametrize("members", [[file("d/f")], [directory("d")], [file("d/e/f")]])
async def test_a_link_in_the_target_is_not_followed(place, members):
    (place / "out").mkdir()
    (place / "out" / "d").symlink_to("../../outside")
    before = snapshot(place.parent)
    with pytest.raises(UnsafeArchive, match="link"):
        await unpack(archive(file("first"), *members), place / "out")
    assert snapshot(place.parent) == before


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [(file("d"), file("d/f"), NotADirectoryError), (file("d/f"), file("d"), IsADirectoryError)],
)
async def test_what_does_not_fit_the_target_moves_nothing(place, old, new, error):
    await unpack(archive(old), place / "out")
    before = snapshot(place)
    with pytest.raises(error):
        await unpack(archive(file("aaa"), new), place / "out")
    assert snapshot(place) == before


async def test_a_file_in_the_targets_place_is_said_at_once(place):
    (place / "out").write_bytes(b"old")
    with pytest.raises(NotADirectoryError):
        async with Unpacker(place / "out"):
            pass
    assert os.listdir(place) == ["out"]


async def test_a_limit_on_the_bytes_is_kept(place):
    await unpack(archive(file("f", b"x" * 100)), place / "out", bytes_max=100)
    with pytest.raises(LimitExceeded):
        await unpack(archive(file("f", b"x" * 99), file("g", b"xx")), place / "bad", bytes_max=100)
    assert os.listdir(place) == ["out"]


async def test_without_commit_nothing_appears(place):
    async with Unpacker(place / "out") as tree:
        await tree.write(GOOD)
    assert os.listdir(place) == []


async def test_a_refused_archive_cannot_be_committed(place):
    async with Unpacker(place / "out") as tree:
        for _ in range(2):
            with pytest.raises(UnsafeArchive, match="up"):
                await tree.write(archive(file("../f")).ljust(2 << 20, b"\0"))
                await tree.commit()
    assert os.listdir(place) == []


async def test_cancelled_it_leaves_nothing_behind(place):
    before = len(os.listdir("/proc/self/fd"))
    with trio.CancelScope() as scope:
        async with Unpacker(place / "out") as tree:
            await tree.write(archive(file("f", b"x" * (2 << 20))))
            scope.cancel()
            await tree.commit()
    assert scope.cancelled_caught
    assert os.listdir(place) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_became_a_link_is_not_entered_again(place):
    data = archive(file("d/f"), file("e/f"), file("d/g"))
    (place / "root").mkdir()
    descriptor = os.open(place / "root", os.O_RDONLY)
    tree = TreeUnpacker(descriptor, None)
    os.close(descriptor)
    tree.write(data[:2048])
    (place / "root" / "d").rename(place / "away")
    (place / "root" / "d").symlink_to(place.parent / "outside")
    with pytest.raises(UnsafeArchive, match="through d"):
        tree.write(data[2048:])
    assert os.listdir(place.parent / "outside") == ["precious"]


async def test_somebody_who_swaps_directories_for_links_leads_nothing_outside(place):
    """While the archive is unpacked, another thread exchanges its directories for links to the outside."""
    data = archive(*(file(f"d{n % 7}/e/f{n}") for n in range(1500)))
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            # What is looked through goes away meanwhile, too.
            with contextlib.suppress(OSError):
                for part in place.glob(".*/tree/d*"):
                    with contextlib.suppress(OSError):
                        part.rename(part.with_name("away"))
                        part.symlink_to(place.parent / "outside")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(5):
            try:
                await unpack(data, place / "out", 1 << 15)
            except (UnsafeArchive, OSError):
                continue
    finally:
        stop.set()
        thread.join()
    assert snapshot(place.parent / "outside") == {"precious": (stat.S_IFREG, 0o644, b"precious")}


async def test_a_disk_that_fails_while_more_comes_fails_the_commit(tmp_path, monkeypatch):
    # Linux says it once: to the sync that was begun early.
    failures = [OSError(errno.EIO, "Input/output error")]

    def sync(descriptor):
        if failures:
            raise failures.pop()

    monkeypatch.setattr(unpacking, "sync_filesystem", sync)
    monkeypatch.setattr(ahead, "SYNC_BYTES", 1)
    async with Unpacker(tmp_path / "tree") as tree:
        await tree.write(archive(file("file", bytes(2 * unpacking.BATCH_BYTES))))
        with pytest.raises(OSError, match="Input/output error"):
            await tree.commit()
    assert list(tmp_path.iterdir()) == []


async def test_a_large_tree_is_synced_while_it_comes_and_at_the_end(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(unpacking, "sync_filesystem", synced.append)
    monkeypatch.setattr(ahead, "SYNC_BYTES", unpacking.BATCH_BYTES)
    async with Unpacker(tmp_path / "tree") as tree:
        await tree.write(archive(file("file", bytes(2 * unpacking.BATCH_BYTES))))
        await tree.commit()
    assert len(synced) == 2
    assert (tmp_path / "tree" / "file").stat().st_size == 2 * unpacking.BATCH_BYTES
