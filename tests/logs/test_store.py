"""The store as the master uses it."""

from __future__ import annotations

import os

import pytest

from tailrace import _core
from tailrace.errors import StoreError
from tailrace.logs import open_store

from .journals import begin, output, run_info, texts


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


async def test_an_empty_run_is_a_run(store):
    writer = await store.create(run_info())
    info = await writer.finish(rc=0)
    assert await texts(store.follow(info.id)) == []
    assert (info.bytes, info.lines) == (0, 0)


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


async def test_workers_and_builders_are_remembered(store):
    await store.note_worker("w1", "i1", {"os": "linux"})
    await store.note_worker("w1", "i2", {"os": "linux"})
    await store.note_builder("w1", "b1")
    await store.note_builder("w1", "b1")
    [worker] = await store.workers()
    assert (worker.name, worker.instance, worker.info) == ("w1", "i2", {"os": "linux"})
    assert worker.first_seen <= worker.last_seen
    assert [(builder.worker, builder.name) for builder in await store.builders()] == [("w1", "b1")]


async def test_errors_of_the_block_come_out_as_they_are(tmp_path):
    with pytest.raises(KeyError):
        async with open_store(tmp_path):
            raise KeyError


async def test_the_chain_is_the_ledgers(store):
    writing = await begin(store)
    ledger = _core.Ledger()
    for number in range(5):
        await writing.write(b"%d\n" % number)
        ledger.add(_core.Batch.parse(writing.batches[-1], ledger.offset))
    assert writing.writer.chain == ledger.chain
    assert writing.writer.end == ledger.offset


async def test_nobody_else_reads_the_store(tmp_path):
    before = os.umask(0o022)
    try:
        async with open_store(tmp_path / "state") as store:
            await (await begin(store)).complete(rc=0)
            names = [path for path in (tmp_path / "state").iterdir() if path.name != "state-version"]
            assert len(names) >= 3
            assert [path.name for path in names if path.stat().st_mode & 0o077] == []
    finally:
        os.umask(before)
