"""A master that goes away, and comes back, under the commands that attend a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import trio

from .fake_master import ENVIRONMENT, FakeRun, serving

NOTE = b"tailrace: master is away, waiting\xe2\x80\xa6\n"


async def started(directory, *arguments):
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", "tailrace", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT | {"TAILRACE_DIR": str(directory)},
    )


async def rest(stream) -> bytes:
    return b"".join([piece async for piece in stream])


class Restarting:
    """A fake master that ends and begins again with the same run."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.run = FakeRun(pieces=[("stdout", b"begun\n")], endless=True, end={"rc": 3})

    def serving(self):
        return serving(self.directory, self.run)


@pytest.fixture
def master(tmp_path):
    return Restarting(tmp_path / "m")


@pytest.mark.parametrize("command", [["run", "--", "x"], ["logs", "r1", "-f"]])
async def test_it_is_waited_for_and_the_output_goes_on(master, command):
    async with master.serving():
        process = await started(master.directory, *command)
        assert await process.stdout.receive_some() == b"begun\n"
    assert await process.stderr.receive_some() == NOTE
    await trio.sleep(0.5)  # some attempts that fail, without another word
    master.run.stopped = trio.Event()
    master.run.pieces.append(("stdout", b"and ended\n"))
    master.run.endless = False
    async with master.serving():
        assert await rest(process.stdout) == b"and ended\n"
        assert await process.wait() == (3 if command[0] == "run" else 0)
    assert await rest(process.stderr) == b""


async def test_json_says_it_as_an_event(master):
    async with master.serving():
        process = await started(master.directory, "run", "--json", "--", "x")
        said = await process.stdout.receive_some()
        while b"record" not in said:
            said += await process.stdout.receive_some()
    said += await process.stdout.receive_some()
    master.run.stopped = trio.Event()
    master.run.endless = False
    async with master.serving():
        said += await rest(process.stdout)
        assert await process.wait() == 3
    rows = [json.loads(line) for line in said.splitlines()]
    assert [(row["type"], row["state"]) if row["type"] == "master" else row["type"] for row in rows] == [
        "run", "record", ("master", "away"), ("master", "back"), "end",
    ]  # fmt: skip
    assert await rest(process.stderr) == b""


@pytest.mark.parametrize("command", [["run", "--no-wait", "--", "x"], ["logs", "r1", "-f", "--no-wait"]])
async def test_who_does_not_want_to_wait_gives_up(master, command):
    async with master.serving():
        process = await started(master.directory, *command)
        assert await process.stdout.receive_some() == b"begun\n"
    assert await process.wait() == 125
    assert b"master" in await rest(process.stderr)


async def test_ctrl_c_leaves_the_log_of_a_master_that_is_away(master):
    async with master.serving():
        process = await started(master.directory, "logs", "r1", "-f")
        assert await process.stdout.receive_some() == b"begun\n"
    assert await process.stderr.receive_some() == NOTE
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_ctrl_c_is_told_to_the_master_when_it_is_back(master):
    async with master.serving():
        process = await started(master.directory, "run", "--", "x")
        assert await process.stdout.receive_some() == b"begun\n"
    assert await process.stderr.receive_some() == NOTE
    process.send_signal(signal.SIGINT)
    assert b"interrupting" in await process.stderr.receive_some()
    master.run.stopped = trio.Event()
    async with master.serving() as back:
        await back.run.stopped.wait()
        assert await process.wait() == 130


async def test_a_second_ctrl_c_leaves_while_the_master_is_away(master):
    async with master.serving():
        process = await started(master.directory, "run", "--", "x")
        assert await process.stdout.receive_some() == b"begun\n"
    assert await process.stderr.receive_some() == NOTE
    process.send_signal(signal.SIGINT)
    assert b"interrupting" in await process.stderr.receive_some()
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_a_master_that_was_never_there_is_not_waited_for(tmp_path):
    (tmp_path / "tailrace.toml").write_text("[master]\n")
    for command in (["run", "--", "x"], ["logs", "last", "-f"]):
        process = await started(tmp_path, *command)
        assert await process.wait() == 125
        assert b"no master is serving" in await rest(process.stderr)


async def test_a_master_whose_directory_is_gone_will_not_come_back(master):
    async with master.serving():
        process = await started(master.directory, "logs", "r1", "-f")
        assert await process.stdout.receive_some() == b"begun\n"
        shutil.rmtree(master.directory)
    assert await process.wait() == 125
    assert os.fsencode(master.directory.name) in await rest(process.stderr)
