"""The store as the master uses it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest
import trio

from tailrace import _core
from tailrace.errors import StoreError
from tailrace.logs import open_store

from .journals import begin, numbered_run, output, run_info, texts


async def test_a_run_reads_back_as_it_was_written(store):
    writing = await begin(store)
    await writing.write(b"one\ntwo")
    await writing.write(b"oops\n", "stderr")
    await writing.write(b" halves\n")
    await writing.write(b"checking...\n", "log", "config.log")
    info = await writing.complete(rc=3, receipt={"records": 4})
    assert await texts(store.read(info.id)) == [
        ("stdout", b"one\ntwo"),
        ("stderr", b"oops\n"),
        ("stdout", b" halves\n"),
        ("log", b"checking...\n"),
    ]
    assert (info.state, info.rc, info.bytes, info.lines) == ("complete", 3, 20, 3)
    assert info.ended is not None
    assert await store.run(info.id) == info
    raw = b"".join([bytes(batch.raw) async for batch in store.batches(info.id)])
    assert raw == writing.raw


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


async def test_an_empty_run_is_a_run(store):
    writer = await store.create(run_info())
    info = await writer.finish(rc=0)
    assert await texts(store.follow(info.id)) == []
    assert (info.bytes, info.lines) == (0, 0)


async def test_followers_see_what_comes_and_end_with_the_run(store):
    writing = await begin(store)
    await writing.write(b"early\n")
    seen = []

    async def follow():
        async for record in store.follow(writing.writer.info.id):
            seen.extend([record.data])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert seen == [b"early\n"]
        assert store.statistics().followers == 1
        await writing.write(b"now\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
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
        await trio.testing.wait_all_tasks_blocked(0.01)
        await writing.write(b"new\n")
        await writing.complete()
    assert seen == [b"new\n"]


async def test_large_batches_are_written_and_read_in_threads(store):
    writing = await begin(store)
    line = b"x" * 99 + b"\n"
    for _ in range(16):
        writing.journal.append("stdout", line * 2500, 1, 1)
    batch = writing.journal.batch(0, 1 << 30)
    assert batch.end > 3 << 20
    await writing.writer.append(batch)
    info = await writing.writer.finish()
    assert await output(store.read(info.id)) == line * 40_000


async def test_runs_are_listed_latest_first(store):
    for number in range(5):
        writer = await store.create(run_info(id=f"run-{number}", started=float(number)))
        if number != 3:
            await writer.finish(rc=number)
    assert [info.id for info in await store.runs()] == [f"run-{n}" for n in (4, 3, 2, 1, 0)]
    assert [info.id for info in await store.runs(limit=2, before="run-3")] == ["run-2", "run-1"]
    assert [info.id for info in await store.runs(state="running")] == ["run-3"]
    assert (await store.run("last")).id == "run-4"


async def test_a_run_is_found_by_a_prefix_that_is_its_alone(store):
    for run_id in ("abc1", "abc2", "abd", "ab"):
        await store.create(run_info(id=run_id))
    assert (await store.run("abd")).id == "abd"
    assert (await store.run("abc1")).id == "abc1"
    assert (await store.run("ab")).id == "ab"
    for name, text in (
        ("abc", "begins the ids of several runs: abc1, abc2"),
        ("x", "there is no run 'x'"),
        ("", "no run"),
    ):
        with pytest.raises(StoreError, match=text):
            await store.run(name)


async def test_no_runs_no_last(store):
    with pytest.raises(StoreError, match="no runs yet"):
        await store.run("last")


async def test_an_id_is_used_once_and_cannot_leave_the_store(store):
    info = run_info()
    await store.create(info)
    with pytest.raises(StoreError, match="already"):
        await store.create(info)
    for bad in ("../x", "", "a/b", ".", "a.new"):
        with pytest.raises(StoreError, match="cannot be the id"):
            await store.create(run_info(id=bad))


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


async def test_workers_and_builders_are_remembered(store):
    await store.note_worker("w1", "i1", {"os": "linux"})
    await store.note_worker("w1", "i2", {"os": "linux"})
    await store.note_builder("w1", "b1")
    await store.note_builder("w1", "b1")
    [worker] = await store.workers()
    assert (worker.name, worker.instance, worker.info) == ("w1", "i2", {"os": "linux"})
    assert worker.first_seen <= worker.last_seen
    assert [(builder.worker, builder.name) for builder in await store.builders()] == [("w1", "b1")]


# ---------------------------------------------------------------- over the life of a process


async def test_what_ended_is_there_again_and_sealed(tmp_path):
    async with open_store(tmp_path) as store:
        info = await numbered_run(store, lines=1000)
    async with open_store(tmp_path) as store:
        assert await store.runs() == [info]
        while store.statistics().sealing or any((tmp_path / "runs" / info.id).glob("*.seg")):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await output(store.read(info.id, tail=2))) == b"999\n1000\n"
    names = {path.suffix for path in (tmp_path / "runs" / info.id).iterdir()}
    assert names == {".zst", ".json"}


async def test_the_catalogue_is_made_again_from_the_runs(tmp_path):
    async with open_store(tmp_path) as store:
        infos = [await numbered_run(store, lines=3, started=float(n), failure=("Bad", "thing")) for n in range(3)]
    for path in tmp_path.glob("catalogue.sqlite*"):
        path.unlink()
    async with open_store(tmp_path) as store:
        assert await store.runs() == infos[::-1]
        await store.rebuild()
        assert await store.runs() == infos[::-1]
        assert await output(store.read("last")) == b"1\n2\n3\n"


async def test_a_catalogue_that_is_none_is_set_aside(tmp_path, caplog):
    async with open_store(tmp_path) as store:
        info = await numbered_run(store, lines=3)
    (tmp_path / "catalogue.sqlite").write_bytes(b"not a database, by far" * 1000)
    async with open_store(tmp_path) as store:
        assert await store.runs() == [info]
    assert (tmp_path / "catalogue.sqlite.damaged").exists()
    assert "made again" in caplog.text


async def test_a_damaged_description_is_a_run_all_the_same(tmp_path):
    async with open_store(tmp_path) as store:
        info = await numbered_run(store, lines=3)
        for name in ("run.json", "result.json"):
            (tmp_path / "runs" / info.id / name).write_text("{")
        await store.rebuild()
        [found] = await store.runs()
        assert (found.id, found.state) == (info.id, "lost")
        assert await output(store.read(found.id)) == b"1\n2\n3\n"


async def test_a_newer_directory_is_left_alone(tmp_path):
    async with open_store(tmp_path):
        pass
    (tmp_path / "state-version").write_text("2\n")
    with pytest.raises(StoreError, match=r"version 2.*use a newer Tailrace"):
        async with open_store(tmp_path):
            pass


async def test_a_newer_catalogue_is_left_alone(tmp_path):
    async with open_store(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "catalogue.sqlite") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(StoreError, match=r"version 7.*use a newer Tailrace"):
        async with open_store(tmp_path):
            pass


async def test_errors_of_the_block_come_out_as_they_are(tmp_path):
    with pytest.raises(KeyError):
        async with open_store(tmp_path):
            raise KeyError


async def test_a_directory_is_used_by_one_process(store, tmp_path):
    with pytest.raises(StoreError, match=f"in use by pid {os.getpid()}"):
        async with open_store(tmp_path):
            pass


WRITER = """
    import os, sys, trio
    from tailrace import _core
    from tailrace.logs import RunInfo, open_store

    async def main():
        async with open_store(sys.argv[1]) as store:
            writer = await store.create(RunInfo(id="r1", worker="w", builder=None, command="", title="", started=1.0))
            journal = _core.Journal()
            number = 0
            while True:
                for _ in range(50):
                    journal.append("stdout", b"line %d\\n" % number, 1, 1)
                    number += 1
                await writer.append(journal.batch(writer.end, 1 << 20))
                journal.release(writer.end)
                os.write(1, b"%d\\n" % number)

    sys.argv[1] = __import__("pathlib").Path(sys.argv[1])
    trio.run(main)
"""


async def test_a_killed_master_loses_no_line_that_was_appended(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), tmp_path], stdout=subprocess.PIPE)
    try:
        for _ in range(200):
            process.stdout.readline()
    finally:
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()
        process.stdout.close()
        process.wait()
    async with open_store(tmp_path) as store:
        info = await store.run("last")
        assert info.state == "lost"
        assert info.failure is not None
        data = await output(store.read(info.id))
        assert info.lines >= int(told[-1]) if told else info.lines >= 10_000
        assert data == b"".join(b"line %d\n" % number for number in range(info.lines))
        assert info.bytes == len(data)
    description = json.loads((tmp_path / "runs" / "r1" / "result.json").read_text())
    assert description["state"] == "lost"


async def test_a_cut_segment_of_a_dead_master_is_read_to_its_last_good_batch(tmp_path):
    async with open_store(tmp_path) as store:
        writing = await begin(store, id="r1")
        for number in range(10):
            await writing.write(b"%d\n" % number)
    [segment] = (tmp_path / "runs" / "r1").glob("*.seg")
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 3)
    async with open_store(tmp_path) as store:
        assert (await store.run("r1")).state == "lost"
        assert await output(store.read("r1")) == b"".join(b"%d\n" % number for number in range(9))


FULL = """
    import resource, sys, trio
    from pathlib import Path
    from tailrace import _core
    from tailrace.errors import StoreError
    from tailrace.logs import RunInfo, open_store

    async def main():
        async with open_store(Path(sys.argv[1])) as store:
            writer = await store.create(RunInfo(id="r1", worker="w", builder=None, command="", title="", started=1.0))
            journal = _core.Journal()
            for _ in range(20):
                journal.append("stdout", b"x" * 99_999 + b"\\n", 1, 1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
            appended = 0
            try:
                while True:
                    await writer.append(journal.batch(writer.end, 1))
                    appended += 1
            except StoreError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await writer.append(journal.batch(writer.end, 1))
            info = await writer.finish(rc=0)
            assert info.lines == appended + 1 == 10, appended

    trio.run(main)
"""


async def test_a_full_disk_says_so_and_the_log_goes_on_when_there_is_room(tmp_path):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(FULL), tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot write ")
    assert "File too large" in done.stdout
    async with open_store(tmp_path) as store:
        assert await output(store.read("r1")) == (b"x" * 99_999 + b"\n") * 10


async def test_the_chain_is_the_ledgers(store):
    writing = await begin(store)
    ledger = _core.Ledger()
    for number in range(5):
        await writing.write(b"%d\n" % number)
        ledger.add(_core.Batch.parse(writing.batches[-1], ledger.offset))
    assert writing.writer.chain == ledger.chain
    assert writing.writer.end == ledger.offset
