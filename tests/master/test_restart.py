"""Masters and connections come and go; runs go on."""

from __future__ import annotations

import hashlib
import socket
import sys
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from tailrace.limits import Limits
from tailrace.master import open_master
from tailrace.worker.daemon import run_worker

SECRETS = {"w1": "a secret of the tests"}
LIMITS = Limits(ping_interval_s=0.5, ping_timeout_s=1.5)
# Writes on while nobody listens, and says what it wrote.
COUNT = """
import hashlib, os, sys, time
digest = hashlib.sha256()
for number in range(int(sys.argv[1])):
    line = b"%08d %s\\n" % (number, b"x" * 91)
    digest.update(line)
    os.write(1, line)
    while number == 1000 and not os.path.exists("go"):
        time.sleep(0.01)
open("digest", "w").write(digest.hexdigest())
"""


@asynccontextmanager
async def worker(directory, port, limits=LIMITS):
    async with trio.open_nursery() as nursery:
        serve = partial(
            run_worker,
            master=f"tailrace://127.0.0.1:{port}",
            name="w1",
            secret=SECRETS["w1"],
            basedir=directory,
            limits=limits,
        )
        nursery.start_soon(serve)
        yield
        nursery.cancel_scope.cancel()


def master(directory, port=0):
    return open_master(directory, listen=[f"tailrace://127.0.0.1:{port}"], accounts=SECRETS, limits=LIMITS)


def count(lines):
    return {"command": [sys.executable, "-c", COUNT, str(lines)], "workdir": ".", "logEnviron": False}


async def stored(master, run_id):
    digest = hashlib.sha256()
    async for record in master.store.read(run_id, channel="stdout"):
        digest.update(record.data)
    return digest.hexdigest()


async def begun(run):
    """Wait until it has written something."""
    async with aclosing(run.follow(channel="stdout")) as records:
        await anext(records)


@pytest.fixture
def port():
    """One that the next process of a master finds free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


async def test_a_run_goes_on_in_the_next_process_of_its_master(tmp_path, port):
    with trio.fail_after(60):
        async with worker(tmp_path / "w", port):
            async with master(tmp_path / "m", port) as first:
                await first.wait_for_worker("w1")
                run = await first.start("w1", "shell", count(100_000))
                await begun(run)
            (tmp_path / "w" / "go").touch()
            async with master(tmp_path / "m", port) as second:
                assert (await second.store.run(run.id)).state == "running"
                await second.store.wait_ended(run.id)
                info = await second.store.run(run.id)
                assert (info.state, info.rc) == ("complete", 0)
                assert info.receipt["agrees"]
                assert await stored(second, run.id) == (tmp_path / "w" / "digest").read_text()
                assert (await second.store.verify(run.id)).ok
                # The worker has forgotten it, and works on.
                again = await second.start("w1", "shell", {"command": "exit 3", "workdir": "."})
                assert (await again.wait()).rc == 3


async def test_a_run_that_its_worker_does_not_know_any_more_is_lost(tmp_path, port):
    with trio.fail_after(60):
        async with master(tmp_path / "m", port) as first, worker(tmp_path / "w", port):
            await first.wait_for_worker("w1")
            run = await first.start("w1", "shell", {"command": "sleep 1000", "workdir": "."})
            await first.aclose()
        async with master(tmp_path / "m", port) as second:
            assert (await second.store.run(run.id)).state == "running"
            async with worker(tmp_path / "other", port):
                await second.wait_for_worker("w1")
                info = await second.store.run(run.id)
                assert info.state == "lost"
                assert "does not know the run any more" in info.failure[1]


async def test_a_run_whose_worker_is_away_can_be_stopped(tmp_path, port):
    with trio.fail_after(60):
        async with worker(tmp_path / "w", port):
            async with master(tmp_path / "m", port) as first:
                await first.wait_for_worker("w1")
                run = await first.start("w1", "shell", {"command": "echo up; sleep 1000", "workdir": "."})
                await begun(run)
            async with open_master(tmp_path / "m") as second:
                await second.stop(run.id, "not wanted")
                info = await second.store.run(run.id)
                assert info.state == "lost"
                assert "not wanted" in info.failure[1]
            async with master(tmp_path / "m", port) as third:
                # The worker comes with it, and is told to forget it.
                await third.wait_for_worker("w1")
                again = await third.start("w1", "shell", {"command": "echo well", "workdir": "."})
                assert (await again.wait()).rc == 0


@pytest.mark.parametrize("grace_s", [0, 300])
async def test_a_connection_that_breaks_loses_a_run_or_not(tmp_path, port, grace_s):
    limits = Limits(resume_grace_s=grace_s)
    listen = [f"tailrace://127.0.0.1:{port}"]
    with trio.fail_after(60):
        async with (
            open_master(tmp_path / "m", listen=listen, accounts=SECRETS, limits=limits) as only,
            worker(tmp_path / "w", port),
        ):
            conn = await only.wait_for_worker("w1")
            run = await only.start("w1", "shell", count(2000))
            await begun(run)
            # As if the network had gone away.
            await trio.aclose_forcefully(conn._line.pump._transport._stream)
            (tmp_path / "w" / "go").touch()
            result = await run.wait()
            if grace_s == 0:
                assert result.state == "lost"
            else:
                assert (result.state, result.rc) == ("complete", 0)
                assert await stored(only, run.id) == (tmp_path / "w" / "digest").read_text()
                assert only.workers["w1"] is conn


@pytest.mark.parametrize("command", ["sleep 1000", "exec 2>&1; trap '' TERM; sleep 1000"])
async def test_a_run_whose_master_stays_away_ends_as_an_orphan(tmp_path, port, command):
    limits = attrs.evolve(LIMITS, orphan_timeout_s=1.0)
    with trio.fail_after(60):
        async with worker(tmp_path / "w", port, limits):
            async with master(tmp_path / "m", port) as first:
                await first.wait_for_worker("w1")
                run = await first.start(
                    "w1", "shell", {"command": f"echo up; echo $$ > pid; {command}", "workdir": "."}
                )
                await begun(run)
            child = int((tmp_path / "w" / "pid").read_text())
            while Path(f"/proc/{child}").exists():  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.05)
            # How it ended is kept for the master, whenever it comes.
            async with master(tmp_path / "m", port) as second:
                await second.store.wait_ended(run.id)
                info = await second.store.run(run.id)
                assert (info.state, info.rc, info.reason) == ("complete", -1, "orphaned")
                assert info.receipt["agrees"]
