"""What is there after the process, its catalogue or its disk have gone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from trio.testing import wait_all_tasks_blocked

from tailrace.errors import StoreError
from tailrace.logs import open_store

from .journals import begin, numbered_run, output


async def test_what_ended_is_there_again_and_sealed(tmp_path):
    async with open_store(tmp_path) as store:
        info = await numbered_run(store, lines=1000)
    async with open_store(tmp_path) as store:
        assert await store.runs() == [info]
        while store.statistics().sealing or any((tmp_path / "runs" / info.id).glob("*.seg")):
            await wait_all_tasks_blocked(0.01)
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


async def test_a_store_in_which_nothing_changed_is_opened_without_a_write_to_its_catalogue(tmp_path):
    async with open_store(tmp_path) as store:
        info = await numbered_run(store, lines=3)
    async with open_store(tmp_path) as store:
        assert await output(store.read(info.id, tail=1)) == b"3\n"
        # A write would be the first in it, and synced.
        assert (tmp_path / "catalogue.sqlite-wal").stat().st_size == 0


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
        [info] = store.abandoned()
        assert (info.state, info.suspended) == ("running", True)
        info = await store.lose(info.id, "its worker never came back")
        assert (info.state, info.suspended) == ("lost", False)
        assert info.failure == ("ConnectionLost", "its worker never came back")
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
        assert (await store.run("r1")).suspended
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
