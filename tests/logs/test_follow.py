"""Readers: from any line on, and along with a log that grows."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tailrace.errors import StoreError

from .journals import begin, numbered_run, output, texts


async def test_any_line_of_any_channel_is_where_reading_begins(store):
    info = await numbered_run(store)
    assert (await output(store.read(info.id, from_line=57))).splitlines() == [b"%d" % n for n in range(57, 101)]
    assert (await output(store.read(info.id, tail=3))).splitlines() == [b"98", b"99", b"100"]
    assert await texts(store.read(info.id, channel="stderr", from_line=9)) == [
        ("stderr", b"90\n"),
        ("stderr", b"100\n"),
    ]
    assert await texts(store.read(info.id, channel="stderr", tail=1)) == [("stderr", b"100\n")]
    assert await texts(store.read(info.id, from_line=101)) == []
    assert await texts(store.read(info.id, tail=0)) == []
    assert len(await texts(store.read(info.id, tail=1000))) == 100
    assert len(await texts(store.read(info, from_line=1))) == 100


async def test_the_first_record_is_cut_at_the_line(store):
    writing = await begin(store)
    await writing.write(b"1\n2\n3")
    await writing.write(b"-\n4\n5\n")
    info = await writing.complete()
    for line, expected in enumerate([b"1\n2\n3-\n4\n5\n", b"2\n3-\n4\n5\n", b"3-\n4\n5\n", b"4\n5\n", b"5\n"], 1):
        assert await output(store.read(info.id, from_line=line)) == expected
        assert await output(store.read(info.id, tail=6 - line)) == expected
    offset, cut = await store.place(info.id, from_line=4)
    batches = [batch async for batch in store.batches(info.id, from_offset=offset)]
    assert batches[0].records()[0].cut(cut).data == b"4\n5\n"
    assert await store.place(info.id) == (0, None)


async def test_a_time_is_found(store):
    info = await numbered_run(store)
    offset = await store.find_time(info.id, 1_700_000_000 + 41.5)
    batches = [batch async for batch in store.batches(info.id, from_offset=offset)]
    assert batches[0].records()[0].data == b"42\n"


async def test_followers_see_what_comes_and_end_with_the_run(store):
    writing = await begin(store)
    await writing.write(b"early\n")
    seen = []

    async def follow():
        async for record in store.follow(writing.writer.info.id):
            seen.extend([record.data])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await wait_all_tasks_blocked(0.01)
        assert seen == [b"early\n"]
        assert store.statistics().followers == 1
        await writing.write(b"now\n")
        await wait_all_tasks_blocked(0.01)
        assert seen == [b"early\n", b"now\n"]
        await writing.complete()
    assert store.statistics().running == 0


async def test_many_slow_followers_cost_nothing_and_miss_nothing(store):
    writing = await begin(store)
    results = {}

    async def follow(number):
        results[number] = b""
        async for record in store.follow(writing.writer.info.id):
            results[number] += record.data
            for _ in range(number):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(follow, number)
        for number in range(300):
            await writing.write(b"line %d\n" % number)
        await writing.complete()
    expected = b"".join(b"line %d\n" % number for number in range(300))
    assert results == dict.fromkeys(range(20), expected)


async def test_a_follower_waits_for_a_line_that_has_not_begun(store):
    writing = await begin(store)
    await writing.write(b"1\n")
    seen = []

    async def follow():
        async for record in store.follow(writing.writer.info.id, from_line=3):
            seen.extend([record.data])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await writing.write(b"2\n3")
        await writing.write(b"!\n", "stdout")
        await writing.complete()
    assert b"".join(seen) == b"3!\n"


async def test_a_tail_of_nothing_follows_from_now_on(store):
    writing = await begin(store)
    await writing.write(b"old\n")
    seen = []

    async def follow():
        async for record in store.follow(writing.writer.info.id, tail=0):
            seen.extend([record.data])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await wait_all_tasks_blocked(0.01)
        await writing.write(b"new\n")
        await writing.complete()
    assert seen == [b"new\n"]


async def test_what_cannot_be_read_is_said(store):
    info = await numbered_run(store)
    with pytest.raises(StoreError, match="there is no run"):
        await texts(store.read("nope"))
    with pytest.raises(StoreError, match="stdout, stderr, header or log:NAME"):
        await texts(store.read(info.id, channel="stdlog", from_line=2))
    with pytest.raises(StoreError, match="stdout, stderr, header or log:NAME"):
        await texts(store.read(info.id, channel="stdlog"))
    with pytest.raises(StoreError, match="no record begins"):
        [batch async for batch in store.batches(info.id, from_offset=1)]


async def test_what_one_reader_has_read_is_at_hand_for_the_others(store):
    writing = await begin(store)
    for number in range(20):
        await writing.write(b"%d" % number * 50_000)
    first, second = writing.writer.reader(), writing.writer.reader()
    assert second.at_hand(0, 1 << 20) is None
    read = first.batch(0, 1 << 20)
    found = second.at_hand(0, 1 << 20)
    assert bytes(found.raw) == bytes(read.raw)[: found.end]
    assert found.end > 0
    # No more than is asked for, in whole records, and only where one begins.
    with pytest.raises(StoreError, match="no record begins"):
        second.at_hand(1, 1 << 20)
    # All of it, whoever of the two reads.
    raw, readers = b"", [first, second]
    while (batch := readers[0].batch(len(raw), 1 << 18)) is not None:
        assert batch.start == len(raw)
        raw += bytes(batch.raw)
        readers.reverse()
    assert raw == writing.raw
    # Who is alone with a log keeps nothing for others.
    del second, readers
    assert first.at_hand(0, 1 << 20) is None


async def test_many_followers_see_the_same(store):
    writing = await begin(store)
    seen = [bytearray() for _ in range(50)]

    async def follow(into):
        async for record in store.follow(writing.writer.info.id):
            into += record.data

    async with trio.open_nursery() as nursery:
        for into in seen:
            nursery.start_soon(follow, into)
        for number in range(60):
            await writing.write(b"%d\n" % number * (1 + 997 * number % 40_000))
        await writing.complete(rc=0)
    expected = b"".join(b"%d\n" % number * (1 + 997 * number % 40_000) for number in range(60))
    assert all(bytes(into) == expected for into in seen)
