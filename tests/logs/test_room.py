"""A disk that is full, or fails: the run waits, or goes on without its log, and ends all the same."""

from __future__ import annotations

import errno

import pytest
import trio

from tailrace.errors import StoreError
from tailrace.logs import directory, open_store
from tailrace.logs import store as store_module
from tailrace.logs.writer import RunWriter

from .journals import begin, output


class Failing:
    """A log whose appends fail as long as `error` is set."""

    def __init__(self, log):
        self.log = log
        self.error = None
        self.tries = 0

    def append(self, batch, chain=None):
        self.tries += 1
        if self.error is not None:
            error = StoreError("cannot write /x.seg: it does not work")
            error.errno = self.error
            raise error
        self.log.append(batch, chain)

    def __getattr__(self, name):
        return getattr(self.log, name)


@pytest.fixture
def logs(monkeypatch):
    made = []

    def make(info, log, *rest):
        made.append(Failing(log))
        return RunWriter(info, made[-1], *rest)

    monkeypatch.setattr("tailrace.logs.store.RunWriter", make)
    return made


async def put(writing, data):
    """One record, put as the master does."""
    writing.journal.append("stdout", data, 1, 1)
    await writing.writer.put(writing.journal.batch(writing.writer.end, 1 << 20))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_waited_for_and_said_once(store, logs, autojump_clock, caplog, number):
    writings = [await begin(store), await begin(store)]
    for log in logs:
        log.error = number
    async with trio.open_nursery() as nursery:
        for writing in writings:
            nursery.start_soon(put, writing, b"one\n")
        await trio.sleep(10)
        assert [writing.writer.end for writing in writings] == [0, 0]
        for log in logs:
            log.error = None
    for writing in writings:
        await put(writing, b"two\n")
        assert writing.writer.left_out == []
        assert await output(store.read(writing.writer.info.id)) == b"one\ntwo\n"
    assert 5 < logs[0].tries < 20
    assert [record.getMessage() for record in caplog.records] == [
        "cannot write /x.seg: it does not work; runs wait until there is room",
        "there is room for logs again",
    ]


async def test_who_is_cancelled_while_it_waits_has_appended_nothing(store, logs, autojump_clock):
    writing = await begin(store)
    logs[0].error = errno.ENOSPC
    with trio.move_on_after(3):
        await put(writing, b"one\n")
    assert writing.writer.end == 0
    logs[0].error = None
    await writing.flush()
    assert await output(store.read(writing.writer.info.id)) == b"one\n"


async def test_who_is_in_a_hurry_leaves_out_what_does_not_fit(store, logs, autojump_clock):
    writing = await begin(store)
    await put(writing, b"one\n")
    begins = writing.writer.end
    logs[0].error = errno.ENOSPC
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, writing, b"two\n")
        await trio.sleep(20)
        writing.writer.hurry(5)
    assert 25 <= trio.current_time() - began < 27
    await put(writing, b"three\n")
    assert trio.current_time() - began < 27
    assert writing.writer.left_out == [(begins, writing.writer.end, "cannot write /x.seg: it does not work")]
    info = await writing.writer.finish(rc=0)
    assert (info.state, info.lines) == ("complete", 1)


async def test_a_gap_is_told_and_the_log_goes_on_behind_it(tmp_path, logs, autojump_clock):
    told = []
    async with open_store(tmp_path, when_full="gap") as store:
        writing = await begin(store, id="r1")
        writing.writer.on_durable(told.append)
        await put(writing, b"one\n")
        begins = writing.writer.end
        logs[0].error = errno.ENOSPC
        for _ in range(100):
            await put(writing, b"lost\n")
        assert logs[0].tries == 2, "it is not tried again at once"
        ends = writing.writer.end
        logs[0].error = None
        await put(writing, b"lost too\n")
        await trio.sleep(2)
        await put(writing, b"two\n")
        writing.journal.finish()
        await writing.flush()
        assert [(begin, to) for begin, to, _ in writing.writer.left_out] == [(begins, ends + len_of(b"lost too\n"))]
        await writing.writer.finish(rc=0, receipt={"agrees": False, "left_out": writing.writer.left_out})
        assert await output(store.read("r1")) == b"one\ntwo\n"
        verified = await store.verify("r1")
        assert verified.damaged_from == begins
        assert "it does not work" in verified.problems[0]
    assert told[-1] == writing.journal.end
    async with open_store(tmp_path) as store:
        assert store.abandoned() == []


def len_of(data):
    """Of a record with that data, in a journal."""
    from tailrace._core import Journal

    journal = Journal()
    journal.append("stdout", data, 1, 1)
    return journal.end


async def test_a_disk_that_fails_costs_the_log_and_not_the_run(store, logs, autojump_clock):
    told = []
    writing = await begin(store)
    writing.writer.on_durable(told.append)
    await put(writing, b"one\n")
    await writing.writer.sync()
    logs[0].error = errno.EIO
    await put(writing, b"two\n")
    logs[0].error = None
    await trio.sleep(100)
    await put(writing, b"three\n")
    assert logs[0].tries == 2
    info = await writing.writer.finish(rc=3)
    await store._commits.commit()
    assert (info.rc, info.lines) == (3, 1)
    assert told[-1] == writing.journal.end


async def test_what_is_no_record_is_nobodys_gap(store):
    writing = await begin(store)
    await put(writing, b"one\n")
    with pytest.raises(StoreError, match="do not follow"):
        await writing.writer.put(writing.journal.batch(0, 1 << 20))
    assert writing.writer.left_out == []


async def test_a_result_that_cannot_be_written_down_is_later(tmp_path, monkeypatch, caplog):
    tries, full, written = [], True, trio.Event()
    write, told = directory.write_result, RunWriter.written_down

    def write_or_not(path, info):
        tries.append(path)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, info)

    def written_down(writer):
        told(writer)
        written.set()

    monkeypatch.setattr(directory, "write_result", write_or_not)
    monkeypatch.setattr(RunWriter, "written_down", written_down)
    monkeypatch.setattr(store_module, "RETRY_S", 0.001)
    async with open_store(tmp_path) as store:
        writing = await begin(store, id="r1")
        await writing.write(b"one\n")
        info = await writing.complete(rc=3)
        assert await store.run("r1") == info == (await store.runs())[0]
        assert info.rc == 3
        assert await output(store.follow("r1")) == b"one\n"
        with trio.fail_after(30):
            while len(tries) < 3:
                await trio.lowlevel.checkpoint()
            assert not written.is_set()
            full = False
            await written.wait()
        assert (tmp_path / "runs" / "r1" / "result.json").exists()
        assert await store.run("r1") == info
    assert "written down later" in caplog.text
