"""The command line against real daemons, as DESIGN's contract and the README promise it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["no-such-program-here"], 127),
    ],
)
def test_run_exits_as_its_command_did(farm, command, code):
    assert farm.tailrace("run", "--on", "w1", "--", *command, check=False).returncode == code


@pytest.mark.parametrize("option", ["--timeout", "--max-time"])
def test_a_timeout_is_124_and_says_so(farm, option):
    ran = farm.tailrace("run", "--on", "w1", option, "0.5", "--", "sleep", "100", check=False)
    assert ran.returncode == 124
    assert b"tim" in ran.stderr.lower()


def test_run_gives_environment_and_directory_to_the_command(farm):
    ran = farm.tailrace(
        "run", "--on", "w2", "--builder", "b1", "--workdir", "sub/dir", "--env", "COLOUR=green", "--", "sh", "-c",
        "pwd; echo $COLOUR; echo err >&2",
    )  # fmt: skip
    where, colour = ran.stdout.decode().splitlines()
    assert where.endswith("/w2/b1/sub/dir")
    assert colour == "green"
    assert ran.stderr == b"err\n"


def test_without_a_name_the_least_busy_worker_runs_it(farm):
    run = farm.tailrace("run", "--detach", "--on", "w1", "--", "sleep", "60").stdout.decode().strip()
    try:
        farm.tailrace("run", "--", "true")
        assert json.loads(farm.tailrace("show", "last", "--json").stdout)["worker"] == "w2"
    finally:
        farm.tailrace("stop", run)


def test_detach_ps_show_follow_stop(farm):
    run = farm.tailrace("run", "--detach", "--on", "w1", "--", "sh", "-c", "echo begun; sleep 100")
    name = run.stdout.decode().strip()
    assert run.stdout == f"{name}\n".encode()
    follower = farm.start("logs", name, "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"begun\n"
    assert name[:8] in farm.tailrace("ps").stdout.decode()
    farm.tailrace("stop", name[:-1], "--why", "enough of it")
    assert follower.wait(timeout=30) == 0
    follower.communicate()
    shown = json.loads(farm.tailrace("show", name, "--json").stdout)
    assert shown["reason"] == "interrupted"
    assert shown["rc"] == -1
    assert name not in farm.tailrace("ps").stdout.decode()
    farm.tailrace("stop", name)  # a run that has ended: no error


def test_a_run_is_verified_and_one_byte_that_differs_is_found(farm):
    farm.tailrace("run", "--on", "w1", "--", "seq", "200000")
    name = json.loads(farm.tailrace("show", "last", "--json").stdout)["id"]
    done = farm.tailrace("verify", name)
    assert ["stdout", "1288895", "bytes,", "200000", "lines"] in [
        line.split() for line in done.stdout.decode().splitlines()
    ]
    assert done.stdout.decode().splitlines()[-1] == "ok"
    # What is damaged while it is being sealed may be the copy that goes away.
    while any((farm.state / "runs" / name).glob("*.seg")):
        time.sleep(0.01)
    largest = max((farm.state / "runs" / name).iterdir(), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    done = farm.tailrace("verify", name, check=False)
    assert done.returncode == 1
    assert b"ok" not in done.stdout
    assert b"of the journal on" in done.stderr


def test_ctrl_c_interrupts_the_run_on_the_worker(farm, tmp_path):
    pid_file = tmp_path / "pid"
    client = farm.start(
        "run",
        "--on",
        "w1",
        "--",
        "sh",
        "-c",
        f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; echo up; exec sleep 1000",
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    child = int(pid_file.read_text())
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=30)
    assert client.returncode == 130
    assert b"interrupt" in errors
    assert b"Traceback" not in errors
    assert not Path(f"/proc/{child}").exists()


def test_a_child_that_ignores_term_goes_with_all_its_descendants(farm, tmp_path):
    mark = f"{time.time():.6f}".replace(".", "")
    script = f'trap "" TERM; (setsid sh -c "sleep 1000.{mark}" &) ; echo up; sleep 1000.{mark}'
    run = farm.tailrace("run", "--detach", "--on", "w1", "--", "sh", "-c", script).stdout.decode().strip()
    follower = farm.start("logs", run, "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"up\n"
    assert count_processes(mark) >= 2
    began = time.monotonic()
    farm.tailrace("stop", run)
    follower.communicate(timeout=30)
    assert time.monotonic() - began < 12
    assert count_processes(mark) == 0
    assert json.loads(farm.tailrace("show", run, "--json").stdout)["reason"] == "interrupted"


def count_processes(mark: str) -> int:
    found = 0
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found += mark.encode() in (process / "cmdline").read_bytes()
            except OSError:
                continue
    return found


def test_logs_by_line_tail_channel_and_time(farm):
    farm.tailrace("run", "--on", "w1", "--", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2")
    logs = lambda *options: farm.tailrace("logs", "last", *options)  # noqa: E731
    assert logs("--channel", "stdout", "--from-line", "4").stdout == b"line 4\nline 5\n"
    assert logs("--channel", "stdout", "--tail", "2").stdout == b"line 4\nline 5\n"
    assert logs("--channel", "stderr").stderr == b"bad\n"
    both = logs()
    assert both.stdout.startswith(b"line 1\n")
    assert both.stderr == b"bad\n"
    stamped = logs("--channel", "stdout", "--timestamps").stdout.decode().splitlines()
    assert len(stamped) == 5
    assert all(line.startswith("20") and line.endswith(f"line {i}") for i, line in enumerate(stamped, 1))


def test_files_and_trees_go_down_and_come_back(farm, tmp_path):
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "naïve name").write_bytes(b"\x00\xff" * 1000)
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("run.sh")
    farm.tailrace("put", tree, "w1:there/tree")
    farm.tailrace("get", "w1:there/tree", tmp_path / "back")
    back = tmp_path / "back"
    assert (back / "deep" / "er" / "naïve name").read_bytes() == b"\x00\xff" * 1000
    assert (back / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (back / "link").readlink() == Path("run.sh")
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 80_000)
    farm.tailrace("put", big, "w2:some/where/big")
    farm.tailrace("get", "w2:some/where/big", tmp_path / "big2")
    assert (tmp_path / "big2").read_bytes() == big.read_bytes()


def test_a_failed_get_leaves_the_old_file(farm, tmp_path):
    old = tmp_path / "old"
    old.write_text("precious")
    got = farm.tailrace("get", "w1:no/such/file", old, check=False)
    assert got.returncode == 1
    assert len(got.stderr.decode().strip().splitlines()) == 1
    assert old.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_workers_are_listed(farm):
    rows = [json.loads(line) for line in farm.tailrace("workers", "--json").stdout.splitlines()]
    assert {row["name"]: row["state"] for row in rows} == {"w1": "attached", "w2": "attached"}


def test_first_output_is_seen_within_50_ms(farm, tmp_path):
    """Median over 50: a child writes the time, the follower looks at its own clock when the line comes."""
    child = "import os, time\nfor _ in range(50):\n time.sleep(0.06)\n os.write(1, b'%d\\n' % time.monotonic_ns())"
    run = farm.tailrace("run", "--detach", "--on", "w1", "--", sys.executable, "-c", child).stdout.decode().strip()
    follower = farm.start("logs", run, "-f")
    assert follower.stdout is not None
    late = [(time.monotonic_ns() - int(line)) / 1e6 for line in follower.stdout]
    follower.communicate()
    late = sorted(late[3:])  # the first ones were there before the follower
    assert len(late) > 30
    assert late[len(late) // 2] < 50
