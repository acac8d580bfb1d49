"""`tailrace run`: what it starts, what it shows, how it exits."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys

import pytest
import trio

from tailrace.cli.api import run_info
from tailrace.cli.ending import exit_code, trouble
from tailrace.cli.failure import Failure
from tailrace.cli.run import environment, positive

from .fake_master import ENVIRONMENT


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"rc": 0}, 0),
        ({"rc": 7}, 7),
        ({"rc": -1, "signal": "SIGTERM"}, 143),
        ({"rc": -1, "signal": "SIGKILL", "reason": "interrupted"}, 137),
        ({"rc": -1}, 255),
        ({"rc": -1, "signal": "SIGNOVEL"}, 255),
        ({"rc": -1, "signal": "SIGKILL", "reason": "timeout"}, 124),
        ({"rc": -1, "signal": "SIGKILL", "reason": "timeout_without_output"}, 124),
        ({"rc": 127}, 127),
        ({"rc": None}, 125),
        ({"rc": None, "failure": ["UnknownCommand", "no such command"]}, 125),
        ({"rc": 0, "state": "lost"}, 125),
    ],
)
def test_a_run_is_an_exit_code(end, code):
    run = run_info({"id": "r", "state": "complete", "worker": "w1", "title": "t", "started": 1.0, **end})
    assert exit_code(run) == code
    if code == 0:
        assert trouble(run) is None


def test_the_environment_is_pairs():
    assert environment(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    with pytest.raises(Failure, match="NAME=VALUE") as caught:
        environment(["A"])
    assert caught.value.code == 2


def test_seconds_are_more_than_none():
    assert positive("--timeout", None) is None
    with pytest.raises(Failure):
        positive("--timeout", float("nan"))


async def test_what_stands_behind_the_dashes_is_not_touched(master):
    done = await master.tailrace(
        "run", "--on", "w1", "--env", "A=-1", "--workdir", "d", "--timeout", "2.5",
        "--", "make", "--json", "--", "--dir=x", "-h",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    method, path, body = next(asked for asked in master.asked if asked[0] == "POST")
    assert (method, path) == ("POST", "/api/runs")
    args = body["args"]
    assert (body["worker"], body["builder"], body["command"]) == ("w1", None, "shell")
    assert args["command"] == ["make", "--json", "--", "--dir=x", "-h"]
    assert (args["env"], args["workdir"], args["timeout"], args["maxTime"]) == ({"A": "-1"}, "d", 2.5, None)


async def test_output_is_exact_on_both_streams_and_nothing_else_is_printed(master):
    data = os.urandom(300_000)
    master.run.pieces = [
        ("header", b"a header\n"),
        ("stdout", data),
        ("stderr", b"\x1b[31mbad\xff"),
        ("log:x", b"no"),
        ("stdout", b"end"),
    ]
    master.run.end = {"rc": 3}
    done = await master.tailrace("run", "--", "x")
    assert done.stdout == data + b"end"
    assert done.stderr == b"\x1b[31mbad\xff"
    assert done.returncode == 3


async def test_detach_prints_the_id_alone(master):
    done = await master.tailrace("run", "--detach", "--", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"r1abc\n", b"")


@pytest.mark.parametrize("where", [["--json", "run"], ["run", "--json"]])
async def test_json_lines_hold_bytes_as_base64(master, where):
    master.run.pieces = [("stdout", b"\xff\n")]
    done = await master.tailrace(*where, "--", "x")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["type"] for row in rows] == ["run", "record", "end"]
    assert base64.b64decode(rows[1]["data_b64"]) == b"\xff\n"
    assert rows[2]["rc"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_interrupts_the_run_and_waits_for_its_end(master, number, code):
    master.run.pieces = [("stdout", b"begun\n")]
    master.run.endless = True
    master.run.end = {"rc": -1, "signal": "SIGTERM", "reason": "interrupted"}
    process = await started(master, "run", "--", "x")
    assert await process.stdout.receive_some() == b"begun\n"
    process.send_signal(number)
    assert await process.wait() == code
    errors = await process.stderr.receive_some()
    assert b"interrupting run r1abc" in errors
    assert b"Traceback" not in errors
    assert ("POST", "/api/runs/r1abc/stop") in [asked[:2] for asked in master.asked]


async def test_a_reader_that_goes_away_interrupts_the_run(master):
    master.run.pieces = [("stdout", b"x" * 100_000)] * 20
    master.run.endless = True
    process = await started(master, "run", "--", "yes")
    await process.stdout.receive_some(10)
    await process.stdout.aclose()
    assert await process.wait() == 141
    assert master.run.stopped.is_set()


async def test_a_reader_that_sleeps_does_not_hold_up_ctrl_c(master):
    master.run.pieces = [("stdout", b"x" * 200_000)] * 20
    master.run.endless = True
    process = await started(master, "run", "--", "yes")
    await process.stdout.receive_some(1)  # it writes, and then nobody reads
    process.send_signal(signal.SIGINT)
    await master.run.stopped.wait()
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_a_log_that_breaks_off_is_a_failure(master):
    master.run.breaks = True
    done = await master.tailrace("run", "--", "x")
    assert done.returncode == 125
    assert b"broke off" in done.stderr


async def test_what_the_master_refuses_is_one_line(master):
    master.refusal = "worker w9 is unknown\nreally"
    done = await master.tailrace("run", "--on", "w9", "--", "x")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == b"tailrace: worker w9 is unknown really; `tailrace workers` lists those that there are\n"


async def started(master, *arguments):
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", "tailrace", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT | {"TAILRACE_DIR": str(master.directory)},
    )
