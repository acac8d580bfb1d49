"""`tailrace run`, `logs`, `put`, `get`, `stop`, `ps` and `show`, as a user types them, with Buildbot's own worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.buildbot.real import BIN, PATIENCE_S, TEST_S, WIRES, Process, make_worker, start_worker, wait_for
from tests.whole.farm import Daemon, Farm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_S)]


@attrs.define
class Bench:
    """A master that listens on both wires, with one real worker on each, which has the wire's name."""

    farm: Farm
    workers: list[Process]

    def home(self, name: str) -> Path:
        return self.farm.directory / name

    def attach(self, name: str, wire: str) -> Process:
        secret = self.farm.add_account(name).read_text().strip()
        [url] = [url for url in self.farm.urls if url.startswith(f"{wire}://")]
        port = int(url.rsplit(":", 1)[1])
        worker = start_worker(make_worker(self.home(name), wire, port, name=name, password=secret))
        self.workers.append(worker)
        wait_for(lambda: name in self.attached() or None, f"worker {name}", worker)
        return worker

    def attached(self) -> set[str]:
        rows = map(json.loads, self.farm.tailrace("workers", "--json").stdout.splitlines())
        return {row["name"] for row in rows if row["state"] == "attached"}

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        return self.farm.tailrace("run", "--on", name, "--", *command, check=False)

    def shown(self, run: str = "last") -> dict[str, object]:
        return json.loads(self.farm.tailrace("show", run, "--json").stdout)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Iterator[Bench]:
    bench = Bench(Farm(tmp_path_factory.mktemp("command-line"), *(f"{wire}://127.0.0.1:0" for wire in WIRES)), [])
    try:
        for wire in WIRES:
            bench.attach(wire, wire)
        yield bench
    finally:
        for worker in bench.workers:
            worker.stop()
        bench.farm.close()


@pytest.fixture(params=WIRES)
def worker(request) -> str:
    """Its name, which is that of its wire."""
    return request.param


def one_line(said: bytes) -> str:
    """What the user was told on stderr."""
    [line] = said.decode().splitlines()
    assert line.startswith("tailrace: ")
    return line


def test_the_line_for_the_workers_machine_makes_one_that_attaches(bench, worker, tmp_path):
    said = bench.farm.tailrace("master", "create", tmp_path / "m", "--listen", f"{worker}://127.0.0.1:1").stdout
    [line] = [line for line in said.decode().splitlines() if "create-worker" in line]
    name, home = f"typed-{worker}", tmp_path / "typed"
    secret = bench.farm.add_account(name).read_text().strip()
    [url] = [url for url in bench.farm.urls if url.startswith(worker)]
    words = {"DIR": str(home), "NAME": name, "SECRET": secret, "127.0.0.1:1": url.partition("://")[2]}
    command = [words.get(word, word) for word in line.split()]
    done = subprocess.run([BIN / command[0], *command[1:]], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    bench.workers.append(typed := start_worker(home))
    wait_for(lambda: name in bench.attached() or None, f"worker {name}", typed)
    assert bench.run(name, "echo", "here").stdout == b"here\n"
    typed.stop()


def test_run_shows_the_output_and_exits_as_the_command_did(bench, worker):
    ran = bench.run(worker, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"out\n", b"err\n")
    assert bench.run(worker, "true").returncode == 0


def test_run_exits_with_255_where_the_wire_does_not_name_the_signal(bench, worker):
    ran = bench.run(worker, "sh", "-c", "echo alive; kill -TERM $$")
    assert (ran.returncode, ran.stdout, ran.stderr) == (255, b"alive\n", b"")


def test_what_cannot_be_started_is_our_failure_and_the_last_line_says_so(bench, worker):
    ran = bench.run(worker, "no-such-program-here")
    assert (ran.returncode, ran.stdout) == (125, b"")
    # What is above it is what Buildbot's worker has to say.
    assert ran.stderr.splitlines()[-1].startswith(b"tailrace: run ")
    assert b"no-such-program-here" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("option", ["--timeout", "--max-time"])
def test_a_timeout_is_124(bench, worker, option):
    ran = bench.farm.tailrace("run", "--on", worker, option, "0.5", "--", "sleep", "100", check=False)
    assert ran.returncode == 124
    assert "timed out" in one_line(ran.stderr)


def test_run_gives_builder_directory_and_environment(bench, worker):
    options = ["--on", worker, "--builder", "b1", "--workdir", "sub/dir", "--env", "COLOUR=green"]
    ran = bench.farm.tailrace("run", *options, "--", "sh", "-c", "pwd; echo $COLOUR")
    assert ran.stdout.decode().splitlines() == [f"{bench.home(worker)}/b1/sub/dir", "green"]


def test_detach_ps_follow_stop_show(bench, worker):
    script = "echo begun; exec sleep 100"
    run = bench.farm.tailrace("run", "--detach", "--on", worker, "--", "sh", "-c", script).stdout.decode().strip()
    follower = bench.farm.start("logs", run, "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"begun\n"
    assert run in bench.farm.tailrace("ps").stdout.decode()
    bench.farm.tailrace("stop", run, "--why", "enough of it")
    assert follower.communicate(timeout=PATIENCE_S) == (b"", b"")
    assert follower.returncode == 0
    shown = bench.shown(run)
    assert (shown["state"], shown["rc"], shown["reason"]) == ("complete", -1, "interrupted")
    assert run not in bench.farm.tailrace("ps").stdout.decode()
    bench.farm.tailrace("stop", run)  # a run that has ended: no error
    assert bench.farm.tailrace("logs", run).stdout == b"begun\n"


def test_a_command_that_ends_in_its_own_way_was_not_interrupted(bench, worker):
    assert bench.run(worker, "sh", "-c", "exit 3").returncode == 3
    shown = bench.shown()
    assert (shown["rc"], shown["reason"]) == (3, None)


def test_ctrl_c_stops_it_on_the_worker(bench, worker, tmp_path):
    client = bench.farm.start("run", "--on", worker, "--", "sh", "-c", "echo $$; exec sleep 1000")
    assert client.stdout is not None
    child = int(client.stdout.readline())
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 130
    assert b"interrupt" in errors
    assert b"Traceback" not in errors
    wait_for(lambda: None if Path(f"/proc/{child}").exists() else True, "the child's end")


def test_logs_by_line_and_channel(bench, worker):
    bench.run(worker, "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2")
    logs = lambda *options: bench.farm.tailrace("logs", "last", *options)  # noqa: E731
    assert logs("--channel", "stdout", "--from-line", "4").stdout == b"line 4\nline 5\n"
    assert logs("--channel", "stdout", "--tail", "2").stdout == b"line 4\nline 5\n"
    assert logs("--channel", "stderr").stderr == b"bad\n"
    stamped = logs("--channel", "stdout", "--timestamps").stdout.decode().splitlines()
    assert len(stamped) == 5
    assert all(line.startswith("20") and line.endswith(f"line {i}") for i, line in enumerate(stamped, 1))


def test_files_and_trees_go_there_and_back(bench, worker, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 5)
    big.chmod(0o750)
    bench.farm.tailrace("put", big, f"{worker}:some/where/big")
    assert (bench.home(worker) / "some/where/big").stat().st_mode & 0o777 == 0o750
    bench.farm.tailrace("get", f"{worker}:some/where/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "a name").write_bytes(b"\x00\xff" * 1000)
    (tree / "link").symlink_to("deep")
    bench.farm.tailrace("put", tree, f"{worker}:there/tree")
    bench.farm.tailrace("get", f"{worker}:there/tree", tmp_path / "tree back")
    assert (tmp_path / "tree back" / "deep" / "er" / "a name").read_bytes() == b"\x00\xff" * 1000
    assert (tmp_path / "tree back" / "link").readlink() == Path("deep")
    # The archive in which it went is not left behind.
    assert os.listdir(bench.home(worker) / "there") == ["tree"]


def test_transfers_that_fail_say_why_in_a_line_and_leave_what_was_there(bench, worker, tmp_path):
    (old := tmp_path / "old").write_text("precious")
    (bench.home(worker) / "file").write_text("no directory")
    (tmp_path / "tree").mkdir()
    for arguments in (
        ("get", f"{worker}:no/such/file", old),
        ("put", old, f"{worker}:file/below"),
        ("put", tmp_path / "tree", f"{worker}:file/below"),
    ):
        done = bench.farm.tailrace(*arguments, check=False)
        assert done.returncode == 1
        assert worker in one_line(done.stderr)
    assert old.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["old", "tree"]
    assert (bench.home(worker) / "file").read_text() == "no directory"


def test_a_worker_that_dies_has_its_run_lost(bench, worker):
    process = bench.attach(f"mortal-{worker}", worker)
    client = bench.farm.start("run", "--on", f"mortal-{worker}", "--", "sh", "-c", "echo $$; exec sleep 1000")
    assert client.stdout is not None
    child = int(client.stdout.readline())
    process.kill()
    # Its worker has left it behind.
    os.kill(child, signal.SIGKILL)
    _, errors = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 125
    assert "lost" in one_line(errors)
    gone = bench.run(f"mortal-{worker}", "true")
    assert gone.returncode == 125
    assert f"mortal-{worker}" in one_line(gone.stderr)


def test_with_our_worker_first_output_is_seen_within_50_ms(bench, worker):
    """On Buildbot's wire: a child writes the time, and the follower looks at its clock.

    Of 50 lines the quicker ones count, since what else the machine does is not ours.
    """
    name, home = f"ours-{worker}", bench.home(f"ours-{worker}")
    secret = bench.farm.add_account(name)
    [url] = [url for url in bench.farm.urls if url.startswith(f"{worker}://")]
    bench.farm.tailrace("worker", "create", home, "--master", url, "--name", name, "--secret-file", secret)
    daemon = Daemon("worker", "serve", home)
    try:
        daemon.line("attached ")
        script = "import os, time\nfor _ in range(50):\n time.sleep(0.06)\n os.write(1, b'%d\\n' % time.monotonic_ns())"
        run = bench.farm.tailrace("run", "--detach", "--on", name, "--", sys.executable, "-c", script).stdout
        follower = bench.farm.start("logs", run.decode().strip(), "-f")
        assert follower.stdout is not None
        late = sorted([(time.monotonic_ns() - int(line)) / 1e6 for line in follower.stdout][3:])
        follower.communicate()
        assert len(late) > 30
        assert late[len(late) // 4] < 50
    finally:
        daemon.stop(signal.SIGKILL)
