"""`tailrace logs`: the bytes, and views of them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
import trio

from tailrace._core import Journal
from tailrace.cli.show import clock

from .fake_master import ENVIRONMENT

PIECES = [("header", b"h\n"), ("stdout", b"one\ntw"), ("stderr", b"bad\n"), ("stdout", b"o\n"), ("log:x", b"named\n")]


async def test_each_stream_goes_where_it_came_from(master):
    master.run.pieces = PIECES
    done = await master.tailrace("logs", "last")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\ntwo\n", b"bad\n")


async def test_raw_is_all_of_it_in_order_on_stdout(master):
    master.run.pieces = PIECES
    done = await master.tailrace("logs", "last", "--raw")
    assert (done.stdout, done.stderr) == (b"one\ntwbad\no\n", b"")


async def test_what_to_show_is_asked_of_the_master(master):
    master.run.pieces = [("log:x", b"named\n")]
    done = await master.tailrace("logs", "r1", "-f", "--channel", "x", "--from-line", "3", "--tail", "9")
    assert done.stdout == b"named\n"
    asked = next(told for _, path, told in master.asked if path.endswith("/place"))
    assert asked == {"follow": "1", "channel": "log", "name": "x", "from_line": "3", "tail": "9"}


async def test_it_begins_where_the_master_says_and_shows_one_channel(master):
    master.run.pieces = [("stdout", b"one\n"), ("stderr", b"bad\n"), ("stdout", b"two\nthree\n"), ("stderr", b"e\n")]
    journal = Journal()
    journal.append("stdout", b"one\n", 1_700_000_000_000_000, 0, None)
    master.run.place = (journal.end, 2)
    done = await master.tailrace("logs", "r1", "--channel", "stdout", "--from-line", "3")
    assert (done.stdout, done.stderr) == (b"two\nthree\n", b"")
    master.run.place = (0, 0)
    done = await master.tailrace("logs", "r1", "--channel", "stderr", "--tail", "3")
    assert (done.stdout, done.stderr) == (b"", b"bad\ne\n")


@pytest.mark.parametrize("cuts", [[0], [10, 0, 3], [300_010, 0, 1]])
async def test_a_follower_goes_on_where_the_connection_broke(master, cuts):
    data = os.urandom(300_000)
    master.run.pieces = [("stdout", b"a\n"), ("stdout", data), ("stderr", b"b\n"), ("stdout", b"c\n")]
    master.run.cuts = cuts.copy()
    done = await master.tailrace("logs", "r1", "-f")
    assert (done.returncode, done.stdout) == (0, b"a\n" + data + b"c\n")
    assert done.stderr.splitlines()[-1] == b"b"
    assert not master.run.cuts


async def test_a_log_that_always_breaks_off_is_a_failure(master):
    master.run.pieces = [("stdout", b"a\n")]
    master.run.cuts = [0] * 100
    done = await master.tailrace("logs", "r1", "-f")
    assert done.returncode == 125
    assert b"breaks off" in done.stderr


@pytest.mark.parametrize("options", [[], ["-f", "--no-wait"]])
async def test_who_does_not_follow_does_not_wait(master, options):
    master.run.pieces = [("stdout", b"a\n")]
    master.run.cuts = [3]
    done = await master.tailrace("logs", "r1", *options)
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"went away" in done.stderr


async def test_times_stand_before_lines_that_begin(master):
    master.run.pieces = PIECES
    done = await master.tailrace("logs", "last", "--timestamps")
    first, second = clock(1_700_000_000.001), clock(1_700_000_000.002)
    lines = done.stdout.decode().splitlines()
    assert lines[0] == f"{first} one"
    assert lines[1].endswith(" two")
    assert done.stderr.decode() == f"{second} bad\n"


@pytest.mark.parametrize("options", [["--raw", "--timestamps"], ["--json", "--raw"]])
async def test_views_exclude_each_other(master, options):
    done = await master.tailrace("logs", "last", *options)
    assert done.returncode == 2
    assert b"exclude" in done.stderr


@pytest.mark.parametrize(("options", "seen"), [([], b"^[]0;t^G\x1b[31mred"), (["--raw"], b"\x1b]0;t\x07\x1b[31mred")])
async def test_only_a_terminal_gets_a_harmless_view(master, options, seen):
    log = b"\x1b]0;t\x07\x1b[31mred"
    master.run.pieces = [("stdout", log)]
    assert (await master.tailrace("logs", "last", *options)).stdout == log
    ours, theirs = pty.openpty()
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tailrace", "logs", "last", *options],
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT | {"TAILRACE_DIR": str(master.directory)},
        )
        assert await process.wait() == 0
        assert os.read(ours, 1000).startswith(seen)
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_reader_that_goes_away_is_no_error(master):
    master.run.pieces = [("stdout", b"x" * 100_000)] * 20
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tailrace", "logs", "last"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT | {"TAILRACE_DIR": str(master.directory)},
    )
    await process.stdout.receive_some(10)
    await process.stdout.aclose()
    assert await process.wait() == 141
    assert await process.stderr.receive_some() == b""
    assert not master.run.stopped.is_set()
