"""Group commit: when a log is said to be safe, and what becomes of one that cannot be."""

from __future__ import annotations

import pytest
import trio

from tailrace._core import Journal, LogWriter
from tailrace.errors import StoreError
from tailrace.logs import commit, open_store
from tailrace.logs.commit import Committer
from tailrace.logs.writer import RunWriter

from .journals import begin, output


class Grown:
    """Something to be made safe, which takes its time."""

    def __init__(self, new=False, error=None):
        self.end = 0
        self.new = new
        self.error = error
        self.at_once = 0
        self.told = []
        self.synced = 0

    def make_safe(self):
        self.at_once += 1
        assert self.at_once == 1, "two commits of one at once"
        self.synced += 1
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return self.new

    def committed(self, end, error):
        self.told.append((end, error))


async def test_what_grows_within_the_interval_is_one_commit(autojump_clock):
    committer = Committer(lambda: None)
    many = [Grown() for _ in range(50)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        for _ in range(10):
            for grown in many:
                grown.end += 1
                committer.grew(grown, 1)
            await trio.sleep(commit.INTERVAL_S / 5)
        await committer.commit()
        assert {grown.told[-1] for grown in many} == {(10, None)}
        nursery.cancel_scope.cancel()
    for grown in many:
        # At once, and every interval since then.
        assert grown.told[0] == (1, None)
        assert grown.synced == len(grown.told) <= 4


async def test_much_at_once_does_not_wait_for_the_interval(autojump_clock):
    committer = Committer(lambda: None)
    grown = Grown()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        began = trio.current_time()
        for _ in range(5):
            grown.end += commit.BYTES
            committer.grew(grown, commit.BYTES)
            while grown.told[-1:] != [(grown.end, None)]:
                await trio.lowlevel.checkpoint()
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def test_an_error_is_told_to_those_whom_it_concerns():
    named = []
    committer = Committer(lambda: named.append(1))
    good, new = Grown(), Grown(new=True)
    refused, unwritten = Grown(error=StoreError("cannot sync x")), Grown(error=OSError(5, "Input/output error", "/y"))
    for grown in (good, new, refused, unwritten):
        committer.grew(grown, 1)
    await committer.commit()
    assert good.told == new.told == [(0, None)]
    assert str(refused.told[0][1]) == "cannot sync x"
    assert str(unwritten.told[0][1]) == "cannot sync /y: Input/output error"
    assert named == [1]


async def test_a_name_that_is_not_safe_makes_only_the_new_ones_unsafe():
    def fail():
        raise OSError(28, "No space left on device", "/runs")

    committer = Committer(fail)
    old, new = Grown(), Grown(new=True)
    committer.grew(old, 1)
    committer.grew(new, 1)
    await committer.commit()
    assert old.told == [(0, None)]
    assert str(new.told[0][1]) == "cannot sync /runs: No space left on device"


async def test_safe_is_said_after_the_append_and_reaches_the_end(store):
    writing = await begin(store)
    told = []
    writing.writer.on_durable(told.append)
    await writing.write(b"one\n")
    assert told == []
    await writing.writer.sync()
    assert told == [writing.writer.end] == [writing.writer.durable]
    for number in range(100):
        await writing.write(b"%d\n" % number)
    end = writing.journal.end
    await writing.complete(rc=0)
    await writing.writer.sync()
    assert told == sorted(told)
    assert told[-1] == writing.journal.end > end


async def test_what_is_open_when_the_store_closes_is_safe_then(tmp_path):
    told = []
    async with open_store(tmp_path) as store:
        writing = await begin(store)
        writing.writer.on_durable(told.append)
        await writing.write(b"one\n")
    assert told == [writing.writer.end]


async def test_in_a_relaxed_store_written_is_safe(tmp_path):
    told = []
    async with open_store(tmp_path, "relaxed") as store:
        writing = await begin(store)
        writing.writer.on_durable(told.append)
        await writing.write(b"one\n")
        assert told == [writing.writer.end]
        await writing.writer.sync()


async def test_who_asks_late_is_told_what_is_safe_already(store):
    writing = await begin(store)
    await writing.write(b"one\n")
    await writing.writer.sync()
    told = []
    writing.writer.on_durable(told.append)
    assert told == [writing.writer.end]


class Unsyncable:
    """A log on a disk that has gone bad."""

    def __init__(self, log):
        self.log = log
        self.bad = False

    def sync(self):
        if self.bad:
            raise StoreError("cannot sync x.seg: Input/output error")
        self.log.sync()

    def __getattr__(self, name):
        return getattr(self.log, name)


async def test_a_log_that_cannot_be_synced_takes_no_more_and_stays_readable(store, monkeypatch, caplog):
    logs = []

    def make(info, log, *rest):
        logs.append(Unsyncable(log))
        return RunWriter(info, logs[0], *rest)

    monkeypatch.setattr("tailrace.logs.store.RunWriter", make)
    writing = await begin(store)
    told = []
    writing.writer.on_durable(told.append)
    await writing.write(b"safe\n")
    await writing.writer.sync()
    safe = list(told)
    logs[0].bad = True
    await writing.write(b"not safe\n")
    with pytest.raises(StoreError, match="Input/output error"):
        await writing.writer.sync()
    with pytest.raises(StoreError, match="Input/output error"):
        await writing.write(b"too late\n")
    logs[0].bad = False
    with pytest.raises(StoreError, match="Input/output error"):
        await writing.writer.sync()
    assert told == safe
    info = await writing.writer.finish(rc=3)
    assert (await store.run(info.id)).rc == 3
    assert await output(store.read(info.id)) == b"safe\nnot safe\n"
    await store._commits.commit()
    # Nobody can do more for it: its worker shall not hold it for ever. But it is not called safe.
    assert told == [*safe, writing.writer.end]
    assert writing.writer.durable == writing.writer.unsafe_from == safe[-1]
    assert "can take no more" in caplog.text


async def test_a_description_that_cannot_be_synced_is_not_safe(store, tmp_path):
    writing = await begin(store)
    (tmp_path / "runs" / writing.writer.info.id / "run.json").unlink()
    await writing.write(b"one\n")
    with pytest.raises(StoreError, match=r"cannot sync .*run\.json"):
        await writing.writer.sync()
    assert writing.writer.durable == 0


def test_a_closed_log_can_still_be_synced(tmp_path):
    log = LogWriter.create(str(tmp_path))
    journal = Journal()
    journal.append("stdout", b"x\n", 1, 1)
    log.append(journal.batch(0, 1000))
    log.close()
    log.sync()
