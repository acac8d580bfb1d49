"""Runs that outlive their master: what was said to be safe is there, and the log goes on where it stands."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tailrace.errors import StoreError
from tailrace.logs import open_store

from .journals import Writing, begin, numbered_run, output


async def left_running(directory, *lines, **fields):
    """A run that its master has left in the middle."""
    async with open_store(directory) as store:
        writing = await begin(store, **fields)
        for line in lines:
            await writing.write(line)
    return writing


async def test_a_run_goes_on_where_its_log_ends(tmp_path):
    left = await left_running(tmp_path, b"one\n", b"two\n", id="r1")
    async with open_store(tmp_path) as store:
        [info] = store.abandoned()
        assert (info.id, info.state, info.suspended) == ("r1", "running", True)
        assert await store.run("r1") == info
        writer = await store.resume("r1")
        assert store.abandoned() == []
        assert (await store.run("r1")).suspended is False
        assert (writer.end, writer.chain) == (left.journal.end, left.journal.chain_at(left.journal.end))
        told = []
        writer.on_durable(told.append)
        await writer.sync()
        assert told[-1:] == [left.journal.end]
        writing = Writing(writer)
        writing.journal = left.journal
        await writing.write(b"three\n")
        info = await writing.complete(rc=0)
        assert (info.state, info.rc, info.lines) == ("complete", 0, 3)
        assert await output(store.read("r1")) == b"one\ntwo\nthree\n"
        assert (await store.verify("r1")).problems == ()


async def test_who_follows_an_abandoned_run_waits_for_it(tmp_path):
    left = await left_running(tmp_path, b"one\n", id="r1")
    seen = []
    async with open_store(tmp_path) as store, trio.open_nursery() as nursery:

        async def follow():
            async for record in store.follow("r1"):
                seen.extend([record.data])

        nursery.start_soon(follow)
        await wait_all_tasks_blocked(0.01)
        assert seen == [b"one\n"]
        writing = Writing(await store.resume("r1"))
        writing.journal = left.journal
        await writing.write(b"two\n")
        await writing.complete(rc=0)
    assert seen == [b"one\n", b"two\n"]


async def test_only_what_waits_can_be_resumed_or_lost(tmp_path):
    await left_running(tmp_path, b"one\n", id="r1", started=2.0)
    await left_running(tmp_path, b"one\n", id="r2", started=1.0)
    async with open_store(tmp_path) as store:
        assert [info.id for info in store.abandoned()] == ["r2", "r1"]
        await numbered_run(store, lines=3, id="r3")
        await store.resume("r1")
        info = await store.lose("r2", "gone")
        assert (info.state, info.failure) == ("lost", ("ConnectionLost", "gone"))
        for run_id in ("r1", "r2", "r3", "r4"):
            with pytest.raises(StoreError, match=f"no run '{run_id}' waits"):
                await store.resume(run_id)
            with pytest.raises(StoreError, match=f"no run '{run_id}' waits"):
                await store.lose(run_id, "")


async def test_an_end_that_only_the_log_knows_is_written_down(tmp_path):
    async with open_store(tmp_path) as store:
        for run_id, failure in (("r1", None), ("r2", ("Bad", "thing"))):
            writing = await begin(store, id=run_id)
            await writing.write(b"one\n")
            ending = {"rc": -1, "signal": "SIGKILL", "failure_reason": "timeout", "elapsed": 2.5}
            writing.journal.update(ending)
            writing.journal.finish(failure)
            await writing.flush()
    async with open_store(tmp_path) as store:
        assert store.abandoned() == []
        for run_id, failure in (("r1", None), ("r2", ("Bad", "thing"))):
            info = await store.run(run_id)
            assert (info.state, info.rc, info.signal, info.reason) == ("complete", -1, "SIGKILL", "timeout")
            assert (info.elapsed, info.failure, info.lines, info.suspended) == (2.5, failure, 1, False)
            assert (info.receipt["agrees"], info.receipt["durable"]) == (True, "disk")
            assert info.receipt["channels"] == {"stdout": [4, 1, 0, 0]}
            assert info.ended >= info.started
            assert (await store.verify(run_id)).ok
    async with open_store(tmp_path) as store:
        assert (await store.run("r1")).rc == -1


async def test_a_receipt_that_was_cut_is_none(tmp_path):
    async with open_store(tmp_path) as store:
        writing = await begin(store, id="r1")
        writing.journal.update({"rc": 0})
        writing.journal.finish()
        await writing.flush()
    [segment] = (tmp_path / "runs" / "r1").glob("*.seg")
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 1)
    async with open_store(tmp_path) as store:
        assert [info.id for info in store.abandoned()] == ["r1"]


async def test_a_log_of_a_newer_version_is_left_alone(tmp_path):
    await left_running(tmp_path, b"one\n", id="r1")
    [segment] = (tmp_path / "runs" / "r1").glob("*.seg")
    raw = bytearray(segment.read_bytes())
    raw[13] = 99
    length = int.from_bytes(raw[4:8], "little") + 8
    import zlib

    raw[8:12] = zlib.crc32(raw[12:length]).to_bytes(4, "little")
    segment.write_bytes(raw)
    async with open_store(tmp_path) as store:
        assert store.abandoned() == []
        info = await store.run("r1")
        assert info.state == "lost"
        assert "newer Tailrace" in info.failure[1]
    assert segment.read_bytes() == raw


# ---------------------------------------------------------------- verify


async def test_a_whole_run_is_verified(store):
    info = await numbered_run(store, lines=100)
    verified = await store.verify("last")
    assert verified.ok
    assert (verified.run, verified.state, verified.damaged_from) == (info.id, "complete", None)
    assert verified.channels == {"stdout": (90 * 2 - 9 + 90, 90, 0), "stderr": (9 * 3 + 4, 10, 0)}
    assert verified.receipt["agrees"] is True
    assert (verified.records, verified.chain) == (verified.receipt["records"], verified.receipt["chain"])


async def test_a_run_that_grows_is_verified_as_far_as_it_goes(store):
    writing = await begin(store)
    await writing.write(b"one\n")
    verified = await store.verify(writing.writer.info)
    assert (verified.ok, verified.receipt, verified.bytes) == (True, None, writing.writer.end)


async def test_a_receipt_of_something_else_is_found(store):
    """The worker, or the wire, had one line that is not stored."""
    writing, other = await begin(store), await begin(store)
    await other.write(b"one\n")
    other.journal.finish()
    await writing.write(b"0ne\n")
    [complete_and_receipt] = [other.journal.batch(other.journal.end - n, 1 << 20) for n in _record_at(other)]
    await writing.writer.append(complete_and_receipt)
    info = await writing.writer.finish(rc=0, receipt={"agrees": False})
    verified = await store.verify(info.id)
    assert not verified.ok
    assert verified.receipt["agrees"] is False
    assert "receipt" in verified.problems[0]


def _record_at(writing):
    """How far from its end the records behind the first one begin."""
    first = writing.journal.batch(0, 1).end
    return [writing.journal.end - first]


async def test_flipped_bytes_are_found_and_where(store, tmp_path):
    info = await numbered_run(store, lines=3)
    [segment] = (tmp_path / "runs" / info.id).glob("*.seg")
    raw = bytearray(segment.read_bytes())
    at = raw.index(b"2\n")
    raw[at] ^= 1
    segment.write_bytes(raw)
    verified = await store.verify(info.id)
    assert not verified.ok
    assert verified.damaged_from == verified.bytes > 0
    assert verified.channels["stdout"] == (2, 1, 0)
    assert "CRC" in verified.problems[0]


async def test_a_log_without_its_end_is_found(store, tmp_path):
    writing = await begin(store)
    await writing.write(b"one\n")
    info = await writing.writer.finish(rc=0, receipt={"chain": "00", "records": 2})
    verified = await store.verify(info.id)
    assert verified.problems == ("the log does not reach its receipt",)


# ---------------------------------------------------------------- kill -9

MASTER = """
    import os, sys, trio
    from pathlib import Path
    from tailrace._core import Journal
    from tailrace.logs import RunInfo, open_store

    async def main():
        async with open_store(Path(sys.argv[1])) as store:
            if store.abandoned():
                writer = await store.resume("r1")
            else:
                writer = await store.create(
                    RunInfo(id="r1", worker="w", builder=None, command="", title="", started=1.0)
                )
            writer.on_durable(lambda offset: os.write(1, b"%d\\n" % offset))
            # The same journal every time, as the worker would still have it.
            journal, number = Journal(), 0
            while True:
                for _ in range(40):
                    journal.append("stdout", b"line %d\\n" % number, 1, 1)
                    number += 1
                if journal.end < writer.end:
                    continue
                assert journal.end == writer.end or writer.chain == journal.chain_at(writer.end)
                await writer.append(journal.batch(writer.end, 1 << 20))
                journal.release(writer.end)
                await trio.sleep(0.001)

    trio.run(main)
"""


async def test_what_was_said_to_be_safe_is_there_after_kill_9(tmp_path):
    random_ = random.Random(4)
    safe = 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(MASTER), tmp_path], stdout=subprocess.PIPE)
        try:
            process.stdout.readline()
            time.sleep(random_.uniform(0, 0.1))
        finally:
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
            process.stdout.close()
            process.wait()
        safe = max([safe, *map(int, said)])
        async with open_store(tmp_path) as store:
            [info] = store.abandoned()
            verified = await store.verify(info)
            assert verified.ok, verified
            assert verified.bytes >= safe > 0
            bytes_, lines, _ = verified.channels["stdout"]
            data = await output(store.read("r1"))
            assert data == b"".join(b"line %d\n" % number for number in range(lines))
            assert bytes_ == len(data)


# ---------------------------------------------------------------- gaps


async def test_a_log_goes_on_behind_what_its_worker_has_forgotten(tmp_path):
    left = await left_running(tmp_path, b"one\n", b"two\n", id="r1")
    journal = left.journal
    journal.append("stdout", b"three\n", 1, 1)
    journal.append("stdout", b"four\n", 1, 1)
    from_, to = left.writer.end, journal.batch(left.writer.end, 1).end
    journal.finish()
    seen = []
    async with open_store(tmp_path) as store:
        async with trio.open_nursery() as nursery:

            async def follow():
                async for record in store.follow("r1"):
                    seen.extend([record.data])

            nursery.start_soon(follow)
            await wait_all_tasks_blocked(0.01)
            writer = await store.resume("r1")
            writer.jump(to, journal.chain_at(to), "the worker has forgotten them")
            assert (writer.end, writer.chain) == (to, journal.chain_at(to))
            await wait_all_tasks_blocked(0.01)
            with pytest.raises(StoreError, match="beyond"):
                writer.jump(0, bytes(32), "")
            await writer.append(journal.batch(to, 1 << 20))
            await writer.finish(rc=0)
        assert seen == [b"one\n", b"two\n", b"four\n"]
        verified = await store.verify("r1")
        assert verified.damaged_from == from_
        assert verified.problems[0] == (
            f"bytes {from_} to {to} of the journal are missing: the worker has forgotten them"
        )
        assert verified.channels == {"stdout": (4 + 4 + 5, 3, 0)}
        # The chain goes on over the gap, so that what is behind it is vouched for.
        assert verified.chain == verified.receipt["chain"]
    async with open_store(tmp_path) as store:
        assert (await store.verify("r1")) == verified


async def test_a_run_whose_chains_differ_is_damaged_up_to_there(tmp_path):
    left = await left_running(tmp_path, b"one\n", id="r1")
    async with open_store(tmp_path) as store:
        writer = await store.resume("r1")
        writer.jump(writer.end, b"7" * 32, "the chains differ")
        left.journal.append("stdout", b"two\n", 1, 1)
        await writer.append(left.journal.batch(writer.end, 1 << 20))
        verified = await store.verify("r1")
        assert verified.damaged_from == left.writer.end
        assert verified.problems == (f"damaged up to byte {left.writer.end}: the chains differ",)


async def test_a_result_that_outlived_the_end_of_its_log_waits_for_it(tmp_path):
    """The machine died: the result had come to the disk by chance, the last batch had not."""
    async with open_store(tmp_path) as store:
        writing = await begin(store, id="r1")
        await writing.write(b"one\n")
        kept = writing.writer.end
        await writing.write(b"two\n")
        info = await writing.complete(rc=3, receipt={"agrees": True, "chain": "", "records": 4})
        [segment] = (tmp_path / "runs" / "r1").glob("*.seg")
        raw = segment.read_bytes()
    for _ in range(2):  # and the master once more
        segment.write_bytes(raw[: raw.index(b"one\n") + 4])
        async with open_store(tmp_path) as store:
            assert [info.id for info in store.abandoned()] == ["r1"]
            assert (await store.run("r1")).suspended
    segment.write_bytes(raw[: raw.index(b"one\n") + 4])
    async with open_store(tmp_path) as store:
        writer = await store.resume("r1")
        assert writer.end == kept
        await writer.append(writing.journal.batch(kept, 1 << 20))
        assert (await writer.finish(rc=3)).lines == info.lines
        segment.write_bytes(segment.read_bytes()[: raw.index(b"one\n") + 4])
    async with open_store(tmp_path) as store:
        lost = await store.lose("r1", "it never came back")
        assert (lost.state, lost.rc, lost.lines, lost.receipt["agrees"]) == ("complete", 3, 1, False)
