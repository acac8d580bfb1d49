"""Bytes that pass through the master: in order, at the slower side's pace, never taken for whole when they are not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tailrace.master.passing import PassingReader, PassingWriter, TransferAborted


async def read_all(reader, size):
    pieces = []
    while piece := await reader.remote_read(size):
        assert len(piece) <= size
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_a_worker_reads_what_was_sent_whatever_the_pieces(size, nursery):
    reader = PassingReader()
    sent = [b"one", b"", b"three", b"x" * 100]

    async def send():
        for piece in sent:
            await reader.send(piece)
        reader.end()

    nursery.start_soon(send)
    assert await read_all(reader, size) == b"".join(sent)
    assert await reader.remote_read(size) == b""
    assert reader.bytes == 108


async def test_small_pieces_are_read_together():
    reader = PassingReader()
    for _ in range(4):
        await reader.send(b"ab")
    assert await reader.remote_read(5) == b"ababa"
    assert await reader.remote_read(5) == b"bab"


async def test_an_aborted_file_is_no_end_of_file():
    reader = PassingReader()
    await reader.send(b"half")
    reader.abort("the client went away")
    assert await reader.remote_read(100) == b"half"
    with pytest.raises(TransferAborted, match="the client went away"):
        await reader.remote_read(100)


async def test_who_sends_waits_for_the_worker(nursery):
    reader = PassingReader()

    async def send():
        for _ in range(1000):
            await reader.send(b"x")

    nursery.start_soon(send)
    await trio.testing.wait_all_tasks_blocked()
    assert reader.bytes < 20
    nursery.cancel_scope.cancel()


async def test_sending_to_a_worker_that_has_ended_says_so():
    reader = PassingReader()
    await reader.remote_close()
    with pytest.raises(TransferAborted):
        await reader.send(b"x")


async def test_what_a_worker_writes_comes_out_and_is_whole_when_it_closed(nursery):
    writer = PassingWriter()

    async def write():
        await writer.remote_write(b"one")
        await writer.remote_write(b"two")
        await writer.remote_utime((1.5, 2.5))
        await writer.remote_close()

    nursery.start_soon(write)
    assert [await writer.take() for _ in range(3)] == [b"one", b"two", None]
    assert writer.complete
    assert writer.times == (1.5, 2.5)


async def test_a_file_that_was_cut_short_is_not_complete():
    writer = PassingWriter()
    await writer.remote_write(b"one")
    writer.cut()
    assert [await writer.take(), await writer.take()] == [b"one", None]
    assert not writer.complete


async def test_a_worker_waits_for_who_takes_and_is_told_when_nobody_does(nursery):
    writer = PassingWriter()
    outcomes = []

    async def write():
        try:
            while True:
                await writer.remote_write(b"x")
        except TransferAborted as error:
            outcomes.append(error)

    nursery.start_soon(write)
    await trio.testing.wait_all_tasks_blocked()
    assert outcomes == []
    writer.close()
    await trio.testing.wait_all_tasks_blocked()
    assert len(outcomes) == 1
