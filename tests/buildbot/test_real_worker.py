"""Buildbot's own worker at a Tailrace master, on both of its wires."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tailrace import Limits, RemoteError, UnknownCommand
from tailrace.master import Master, open_master
from tailrace.master.files import DiskReader, DiskWriter, TreeWriter
from tests.buildbot.real import PATIENCE_S, TEST_S, WIRES, Process, Wire, make_worker, start_worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_S)]

SH = ["/bin/sh", "-c"]


@attrs.define
class Bench:
    """A Tailrace master for one real worker."""

    wire: Wire
    directory: Path
    master: Master
    workers: list[Process]

    @property
    def port(self) -> int:
        return int(self.master.endpoints[0].rsplit(":", 1)[1])

    def start_worker(self, home: str = "w", **options) -> Process:
        worker = start_worker(make_worker(self.directory / home, self.wire, self.port, **options))
        self.workers.append(worker)
        return worker

    async def attach(self, home: str = "w", **options) -> Process:
        worker = self.start_worker(home, **options)
        with trio.fail_after(PATIENCE_S):
            await self.master.wait_for_worker(options.get("name", "w1"))
        return worker

    async def run(self, command: str, args: dict, **options):
        """A command to its end: its result, and the text of stdout and of stderr."""
        run = await self.master.start("w1", command, args, **options)
        with trio.fail_after(PATIENCE_S):
            result = await run.wait()
        return result, await self.text(run, "stdout"), await self.text(run, "stderr")

    async def text(self, run, channel: str) -> str:
        return b"".join([record.data async for record in run.follow(channel=channel)]).decode()

    async def shell(self, script: str, **args):
        return await self.run("shell", {"command": [*SH, script], "workdir": ".", "logEnviron": False, **args})

    async def wait_detached(self, name: str = "w1") -> None:
        gone = trio.Event()
        if name in self.master.workers:
            self.master.workers[name].notifyOnDisconnect(gone.set)
            with trio.fail_after(PATIENCE_S):
                await gone.wait()


@asynccontextmanager
async def serving(directory: Path, wire: Wire, *, port: int = 0, limits: Limits | None = None):
    accounts = {"w1": "sesame", "w2": "sesame"}
    listen = [f"{wire}://127.0.0.1:{port}"]
    async with open_master(directory / "master", listen=listen, accounts=accounts, limits=limits) as master:
        bench = Bench(wire, directory, master, [])
        try:
            yield bench
        finally:
            for worker in bench.workers:
                # One that was stopped cannot end.
                if worker.code is None:
                    worker.send(signal.SIGCONT)
                await trio.to_thread.run_sync(worker.stop)


@pytest.fixture(params=WIRES)
def wire(request) -> Wire:
    return request.param


@pytest.fixture
async def bench(tmp_path, wire):
    async with serving(tmp_path, wire) as bench:
        yield bench


async def step(until, what: str):
    """Wait until a process that has no way to tell us has done something."""
    with trio.fail_after(PATIENCE_S):
        while not (found := until()):  # noqa: ASYNC110
            await trio.sleep(0.02)
    return found


# ---------------------------------------------------------------- commands


async def test_it_attaches_and_says_who_it_is(bench):
    await bench.attach()
    info = bench.master.workers["w1"].info
    assert info["version"] == "4.3.0"
    assert info["admin"].strip() == "Ada <ada@example.org>"
    assert info["basedir"] == str(bench.directory / "w")
    assert info["worker_commands"]["shell"] == "3.3"
    assert info["environ"]["SECRET_TOKEN"] == "hush"
    await bench.master.workers["w1"].remotePrint("hello from the test")
    assert bench.workers[0].wait_log("hello from the test") is None


async def test_shell(bench):
    await bench.attach()
    result, out, err = await bench.shell("echo out; echo err >&2; echo $COLOUR", env={"COLOUR": "red"})
    assert (result.rc, out, err) == (0, "out\nred\n", "err\n")
    assert result.elapsed > 0
    assert result.state == "complete"
    assert (await bench.shell("exit 3"))[0].rc == 3
    died, out, _err = await bench.shell("echo alive; kill -9 $$")
    assert (died.rc, out) == (-1, "alive\n")
    missing, _out, err = await bench.run("shell", {"command": ["/no/such/thing"], "workdir": "."})
    assert missing.rc != 0
    assert "No such file" in err
    slow, out, _err = await bench.shell("echo begun; sleep 60", timeout=2)
    assert (slow.rc, slow.reason, out) == (-1, "timeout_without_output", "begun\n")
    long, *_ = await bench.shell("while :; do echo x; sleep 0.1; done", maxTime=0.5)
    assert (long.rc, long.reason) == (-1, "timeout")
    many, *_ = await bench.shell("echo 1; echo 2; echo 3; sleep 60", max_lines=2)
    assert (many.rc, many.reason) == (-1, "max_lines_failure")
    where, out, _err = await bench.shell("pwd", workdir="deep/down")
    assert (where.rc, out) == (0, f"{bench.directory}/w/deep/down\n")
    fed, out, _err = await bench.shell("cat", initial_stdin="from the master\n")
    assert (fed.rc, out) == (0, "from the master\n")
    terminal, out, _err = await bench.shell("test -t 1 && echo yes", usePTY=True)
    assert (terminal.rc, out.strip()) == (0, "yes")


async def test_a_watched_log_has_its_own_channel(bench):
    await bench.attach()
    args = {"command": [*SH, "echo in the file > watch.log"], "workdir": ".", "logfiles": {"watched": "watch.log"}}
    run = await bench.master.start("w1", "shell", args)
    assert (await run.wait()).rc == 0
    records = [record async for record in run.follow() if record.channel == "log"]
    assert [(record.name, record.data) for record in records] == [("watched", b"in the file\n")]


async def test_secrets_stay_hidden(bench):
    await bench.attach()
    command = ["/bin/echo", ("obfuscated", "swordfish", "*****")]
    run = await bench.master.start("w1", "shell", {"command": command, "workdir": ".", "logEnviron": False})
    assert (await run.wait()).rc == 0
    assert await bench.text(run, "stdout") == "swordfish\n"
    assert "swordfish" not in await bench.text(run, "header")


async def test_on_msgpack_long_lines_are_asked_for_and_come(tmp_path):
    """On PB a worker of Buildbot's has a limit of its own, and loses text there."""
    async with serving(tmp_path, "msgpack") as bench:
        await bench.attach()
        result, out, _err = await bench.run(
            "shell", {"command": [sys.executable, "-c", "print('x' * 1_000_000)"], "workdir": "."}
        )
        assert (result.rc, len(out), set(out)) == (0, 1_000_001, {"x", "\n"})


async def test_file_system_commands(bench):
    await bench.attach()
    home = bench.directory / "w"

    async def rc(command, **args):
        return (await bench.run(command, args))[0]

    assert (await rc("mkdir", dir="tree/branch")).rc == 0
    (home / "tree" / "leaf").write_text("green")
    assert (await rc("mkdir", dir="tree/leaf/nothing")).rc != 0
    stat = (await rc("stat", file="tree/leaf")).stat
    assert stat[6] == 5
    assert (await rc("stat", file="nothing")).rc != 0
    assert sorted((await rc("listdir", dir="tree")).files) == ["branch", "leaf"]
    assert (await rc("listdir", dir="nothing")).rc != 0
    assert [os.path.normpath(path) for path in (await rc("glob", path="tree/l*")).files] == [f"{home}/tree/leaf"]
    assert (await rc("glob", path="none*")).files == ()
    assert (await rc("cpdir", fromdir="tree", todir="copy")).rc == 0
    assert (home / "copy" / "leaf").read_text() == "green"
    assert (await rc("cpdir", fromdir="nothing", todir="elsewhere")).rc != 0
    assert (await rc("rmdir", dir=["copy", "tree/branch"])).rc == 0
    assert not (home / "copy").exists()
    assert not (home / "tree" / "branch").exists()
    assert (await rc("rmfile", path="tree/leaf")).rc == 0
    assert (await rc("rmfile", path="tree/leaf")).rc != 0


async def test_an_unknown_command_is_refused(bench):
    await bench.attach()
    with pytest.raises(RemoteError) as caught:
        await bench.run("levitate", {})
    assert isinstance(caught.value, UnknownCommand) or "levitate" in str(caught.value)
    with pytest.raises(RemoteError):
        await bench.run("rmfile", {})
    assert (await bench.shell("true"))[0].rc == 0


async def test_a_large_log_arrives_whole(bench):
    await bench.attach()
    script = (
        "import hashlib, sys\n"
        "digest = hashlib.sha256()\n"
        "for number in range(13000):\n"
        "    line = (f'{number:06} ' + 'x' * (4000 - number % 100) + '\\n').encode()\n"
        "    digest.update(line)\n"
        "    sys.stdout.buffer.write(line)\n"
        "open('digest', 'w').write(digest.hexdigest())\n"
    )
    run = await bench.master.start("w1", "shell", {"command": [sys.executable, "-c", script], "workdir": "."})
    digest, size = hashlib.sha256(), 0
    async for record in run.follow(channel="stdout"):
        digest.update(record.data)
        size += len(record)
    assert (await run.wait()).rc == 0
    assert size > 50_000_000
    assert digest.hexdigest() == (bench.directory / "w" / "digest").read_text()


# ---------------------------------------------------------------- transfers


def big(path: Path) -> str:
    data = os.urandom(1 << 20) * 20
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


async def test_uploads(bench):
    await bench.attach()
    home, here = bench.directory / "w", bench.directory / "here"
    here.mkdir()
    digest = big(home / "big")
    os.utime(home / "big", (1_500_000_000, 1_600_000_000))
    args = {"workersrc": "big", "workdir": ".", "maxsize": None, "blocksize": 1 << 18}
    kept = args | {"writer": DiskWriter(here, "big"), "keepstamp": True}
    assert (await bench.run("uploadFile", kept))[0].rc == 0
    assert hashlib.sha256((here / "big").read_bytes()).hexdigest() == digest
    assert (here / "big").stat().st_mtime == 1_600_000_000
    result, _out, err = await bench.run(
        "uploadFile", args | {"workersrc": "nothing", "writer": DiskWriter(here, "big")}
    )
    assert result.rc != 0 or result.failure is not None
    assert "nothing" in err
    # The one that was there is as it was.
    assert hashlib.sha256((here / "big").read_bytes()).hexdigest() == digest
    assert sorted(os.listdir(here)) == ["big"]


async def test_an_upload_that_is_too_large_changes_nothing(bench):
    await bench.attach()
    here = bench.directory / "here"
    here.mkdir()
    (here / "big").write_text("old")
    big(bench.directory / "w" / "big")
    args = {"workersrc": "big", "workdir": ".", "maxsize": None, "blocksize": 1 << 18}
    result, *_ = await bench.run("uploadFile", args | {"writer": DiskWriter(here, "big", maxsize=1000)})
    assert result.rc != 0 or result.failure is not None
    assert (here / "big").read_text() == "old"
    assert (await bench.shell("true"))[0].rc == 0


@pytest.mark.parametrize("compress", [None, "gz"])
async def test_a_directory_is_uploaded(bench, compress):
    await bench.attach()
    tree = bench.directory / "w" / "tree"
    (tree / "branch").mkdir(parents=True)
    (tree / "branch" / "leaf").write_text("green")
    (tree / "link").symlink_to("branch/leaf")
    big(tree / "big")
    here = bench.directory / "here"
    here.mkdir()
    args = {"workersrc": "tree", "workdir": ".", "maxsize": None, "blocksize": 16384, "compress": compress}
    result, *_ = await bench.run("uploadDirectory", args | {"writer": TreeWriter(here, "tree")})
    assert (result.rc, result.failure) == (0, None)
    assert (here / "tree" / "branch" / "leaf").read_text() == "green"
    assert os.readlink(here / "tree" / "link") == "branch/leaf"
    assert (here / "tree" / "big").read_bytes() == (tree / "big").read_bytes()


async def test_downloads(bench):
    await bench.attach()
    here = bench.directory / "here"
    here.mkdir()
    digest = big(here / "big")
    (here / "empty").write_bytes(b"")
    args = {"workdir": ".", "maxsize": None, "blocksize": 1 << 18, "mode": 0o640}
    home = bench.directory / "w"
    down = args | {"workerdest": "new/dir/big", "reader": DiskReader(here, "big")}
    assert (await bench.run("downloadFile", down))[0].rc == 0
    assert hashlib.sha256((home / "new/dir/big").read_bytes()).hexdigest() == digest
    assert (home / "new/dir/big").stat().st_mode & 0o777 == 0o640
    down = args | {"workerdest": "empty", "reader": DiskReader(here, "empty")}
    assert (await bench.run("downloadFile", down))[0].rc == 0
    assert (home / "empty").read_bytes() == b""
    down = args | {"workerdest": "new/dir/big/file", "reader": DiskReader(here, "big")}
    result, _out, err = await bench.run("downloadFile", down)
    assert result.rc != 0
    assert "new/dir/big" in err
    down = args | {"workerdest": "missing", "reader": DiskReader(here, "missing")}
    result, *_ = await bench.run("downloadFile", down)
    assert result.rc != 0 or result.failure is not None


# ---------------------------------------------------------------- stopping, and several at once


async def test_a_command_is_interrupted(bench):
    await bench.attach()
    script = "echo begun; touch begun; exec sleep 60"
    run = await bench.master.start("w1", "shell", {"command": [*SH, script], "workdir": "."})
    await step((bench.directory / "w" / "begun").exists, "the command's begin")
    await run.interrupt("enough")
    with trio.fail_after(PATIENCE_S):
        result = await run.wait()
    assert result.rc == -1
    assert await bench.text(run, "stdout") == "begun\n"
    assert (await bench.shell("true"))[0].rc == 0


async def test_builders_have_their_directories(bench):
    await bench.attach()
    args = {"command": ["pwd"], "workdir": "."}
    for name in ("linux", "doc"):
        result, out, _err = await bench.run("shell", args, builder=name)
        assert (result.rc, out) == (0, f"{bench.directory}/w/{name}\n")


async def test_commands_run_side_by_side_also_in_one_builder(bench):
    await bench.attach()
    meet = "touch $ME; while ! test -e ../{0}/$OTHER; do sleep 0.05; done; echo met"
    runs = []
    for builder, other, me in (("a", "a", "1"), ("a", "b", "2"), ("b", "a", "3")):
        env = {"ME": me, "OTHER": {"1": "2", "2": "3", "3": "1"}[me]}
        args = {"command": [*SH, meet.format(other)], "workdir": ".", "env": env}
        runs.append(await bench.master.start("w1", "shell", args, builder=builder))
    with trio.fail_after(PATIENCE_S):
        assert [(await run.wait()).rc for run in runs] == [0, 0, 0]
    assert [await bench.text(run, "stdout") for run in runs] == ["met\n"] * 3


# ---------------------------------------------------------------- coming and going


async def test_a_worker_comes_again(bench):
    worker = await bench.attach()
    await trio.to_thread.run_sync(worker.stop)
    await bench.wait_detached()
    await bench.attach()
    assert (await bench.shell("true"))[0].rc == 0


async def test_a_master_comes_again(tmp_path, wire):
    async with serving(tmp_path, wire) as bench:
        port = bench.port
        await bench.attach()
        [worker], bench.workers = bench.workers, []
    async with serving(tmp_path, wire, port=port) as bench:
        bench.workers.append(worker)
        with trio.fail_after(PATIENCE_S):
            await bench.master.wait_for_worker("w1")
        assert (await bench.shell("echo here"))[1] == "here\n"


async def test_the_wrong_password_is_refused(bench, caplog):
    worker = bench.start_worker(password="wrong")
    with caplog.at_level(logging.WARNING, "tailrace.link"):
        await step(lambda: "wrong secret" in caplog.text, "the refusal")
    await trio.to_thread.run_sync(worker.wait_log, "nauthorized")
    assert "w1" not in bench.master.workers


async def test_a_second_worker_of_a_name_is_refused_and_both_sides_say_so(bench, caplog):
    await bench.attach()
    with caplog.at_level(logging.WARNING, "tailrace.link"):
        second = bench.start_worker("second")
        await step(lambda: "refused (duplicate)" in caplog.text, "the refusal")
    if bench.wire == "pb":
        # That is how Buildbot's worker takes it.
        await trio.to_thread.run_sync(second.wait_exit)
        assert "is attached from" in second.log()
    assert bench.master.workers["w1"].info["basedir"] == str(bench.directory / "w")
    assert (await bench.shell("echo still here"))[1] == "still here\n"


async def test_a_worker_that_answers_no_more_makes_place(tmp_path, wire):
    async with serving(tmp_path, wire, limits=Limits(duplicate_timeout_s=0.5)) as bench:
        first = await bench.attach()
        first.send(signal.SIGSTOP)
        old = bench.master.workers["w1"]
        bench.start_worker("second")
        await step(lambda: bench.master.workers.get("w1") not in (old, None), "the second")
        assert bench.master.workers["w1"].info["basedir"] == str(tmp_path / "second")
        assert old.state == "lost"


async def test_a_silent_worker_is_dropped(tmp_path, wire, caplog):
    limits = Limits(ping_interval_s=0.5, ping_timeout_s=3)
    async with serving(tmp_path, wire, limits=limits) as bench:
        worker = await bench.attach()
        # It lives as long as it answers.
        connection = bench.master.workers["w1"]
        await step(lambda: connection.statistics().rtt_s is not None, "an answer to a ping")
        assert bench.master.workers["w1"] is connection
        worker.send(signal.SIGSTOP)
        with caplog.at_level(logging.INFO, "tailrace.link"):
            await bench.wait_detached()
        assert "no sign of life" in caplog.text


async def test_a_worker_dies_in_mid_command(bench):
    worker = await bench.attach()
    script = "touch begun; sleep 5"
    run = await bench.master.start("w1", "shell", {"command": [*SH, script], "workdir": "."})
    await step((bench.directory / "w" / "begun").exists, "the command's begin")
    worker.kill()
    with trio.fail_after(PATIENCE_S):
        result = await run.wait()
    assert (result.state, result.rc) == ("lost", None)
    await bench.attach()
    assert (await bench.shell("echo again"))[1] == "again\n"


async def test_a_master_shuts_its_worker_down(bench):
    worker = await bench.attach()
    await bench.master.workers["w1"].remoteShutdown()
    await bench.wait_detached()
    assert await trio.to_thread.run_sync(worker.wait_exit) == 0


async def test_a_worker_asks_for_a_graceful_end(tmp_path):
    async with serving(tmp_path, "pb") as bench:
        worker = await bench.attach(allow_shutdown="signal")
        run = await bench.master.start("w1", "shell", {"command": [*SH, "sleep 1; echo done"], "workdir": "."})
        worker.send(signal.SIGHUP)
        with trio.fail_after(PATIENCE_S):
            assert (await run.wait()).rc == 0
        assert await trio.to_thread.run_sync(worker.wait_exit) == 0
        assert await bench.text(run, "stdout") == "done\n"


async def test_leftovers_go_and_known_builders_stay(bench):
    worker = await bench.attach(delete_leftover_dirs=True)
    home = bench.directory / "w"
    await bench.run("shell", {"command": ["touch", "kept"], "workdir": "."}, builder="linux")
    await trio.to_thread.run_sync(worker.stop)
    await bench.wait_detached()
    (home / "old").mkdir()
    await bench.attach(delete_leftover_dirs=True)
    assert (home / "linux" / "kept").exists()
    if bench.wire == "pb":
        await step(lambda: not (home / "old").exists(), "the removal")
