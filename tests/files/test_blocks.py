"""Files on their way out: the blocks that `FileBlocks` reads."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from tailrace._core import Batch, Blake3
from tailrace.files import FileBlocks
from tailrace.files.blocks import AHEAD_BLOCKS

MIB = 1024 * 1024


def opened(path):
    return FileBlocks(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def digest_of(data):
    digest = Blake3()
    digest.update(data)
    return digest.digest()


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 100_000])
async def test_the_blocks_are_the_file_and_so_is_the_digest(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    blocks, digest, records = opened(tmp_path / "file"), Blake3(), b""
    while (block := await blocks.read_block(digest)) is not None:
        assert len(Batch.parse(block).chunk_bytes()) == block.size <= MIB
        records += bytes(block)
    assert await blocks.read_block(digest) is None
    blocks.close()
    assert Batch.parse(records).chunk_bytes() == data
    assert (digest.length, digest.digest()) == (size, digest_of(data))


async def test_blocks_that_are_kept_do_not_change(tmp_path):
    # Their memory goes round.
    data = os.urandom(12 * MIB)
    (tmp_path / "file").write_bytes(data)
    blocks, digest, kept = opened(tmp_path / "file"), Blake3(), []
    for number in range(12):
        kept.append(await blocks.read_block(digest))
        if number % 3 == 2:
            kept[number - 1] = bytes(kept[number - 1])
    blocks.close()
    assert Batch.parse(b"".join(map(bytes, kept))).chunk_bytes() == data


async def test_blocks_are_read_before_they_are_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(bytes(3 * AHEAD_BLOCKS * MIB))
    blocks, digest = opened(tmp_path / "file"), Blake3()
    for number in range(1, AHEAD_BLOCKS):
        await blocks.read_block(digest)
        with trio.fail_after(10):
            while blocks._reading or len(blocks._ready) <= AHEAD_BLOCKS // 2:
                await trio.lowlevel.checkpoint()
        assert (number + AHEAD_BLOCKS // 2) * MIB < digest.length <= (number + AHEAD_BLOCKS) * MIB
    blocks.close()
    assert await read_to_the_end(blocks, digest) <= AHEAD_BLOCKS


async def read_to_the_end(blocks, digest):
    count = 0
    while await blocks.read_block(digest) is not None:
        count += 1
    return count


async def test_the_end_is_read_once(tmp_path):
    here, there = os.pipe()
    blocks, digest = FileBlocks(here), Blake3()
    os.write(there, b"all")
    os.close(there)
    assert await read_to_the_end(blocks, digest) == 1
    with trio.fail_after(10):
        while blocks._reading:
            await trio.lowlevel.checkpoint()
    assert not blocks._ready
    blocks.close()
    assert not is_open(here)


async def test_what_cannot_be_read_is_an_os_error_with_its_number(tmp_path):
    blocks = opened(tmp_path)
    with pytest.raises(IsADirectoryError) as raised:
        await blocks.read_block(Blake3())
    assert (raised.value.errno, raised.value.strerror) == (21, "Is a directory")
    blocks.close()


async def test_a_cancelled_read_of_a_pipe_leaves_its_thread_the_file_to_close():
    here, there = os.pipe()
    blocks, digest = FileBlocks(here), Blake3()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blocks.read_block, digest)
        with trio.fail_after(10):
            while not blocks._busy.locked():
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    blocks.close()
    assert is_open(here)
    os.write(there, b"x")
    os.close(there)
    with trio.fail_after(10):
        while is_open(here):
            await trio.lowlevel.checkpoint()


async def test_a_pipe_gives_what_is_there():
    here, there = os.pipe()
    blocks, digest = FileBlocks(here), Blake3()
    os.write(there, b"first")
    block = await blocks.read_block(digest)
    assert Batch.parse(block).chunk_bytes() == b"first"
    os.close(there)
    assert await blocks.read_block(digest) is None
    blocks.close()
    assert not is_open(here)


async def test_a_read_that_was_cancelled_is_not_lost():
    here, there = os.pipe()
    blocks, digest = FileBlocks(here), Blake3()
    with trio.move_on_after(0):
        await blocks.read_block(digest)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blocks.read_block, digest)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    os.write(there, b"whole")
    assert Batch.parse(await blocks.read_block(digest)).chunk_bytes() == b"whole"
    os.close(there)
    blocks.close()
