"""A master that is killed under the commands that attend a run, and under two hundred workers."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from contextlib import closing, suppress

import pytest
import trio

from tailrace.errors import TailraceError
from tailrace.link.dial import dial
from tailrace.link.holdings import Holdings
from tailrace.master import config
from tailrace.worker.daemon import BACKOFF_FACTOR, BACKOFF_FIRST_S, BACKOFF_MAX_S

from ..link.farm import Handler  # noqa: TID252 - the same light workers as there
from .farm import Farm

LINES = 400
COMMAND = f"for i in $(seq {LINES}); do echo line $i; sleep 0.02; done; exit 5"
WHOLE = b"".join(b"line %d\n" % number for number in range(1, LINES + 1))
NOTE = b"tailrace: master is away, waiting\xe2\x80\xa6\n"
WORKERS = 200
BACK_S = 30.0


@pytest.fixture
def farm(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    farm = Farm(tmp_path, f"tailrace://127.0.0.1:{port}")
    try:
        yield farm
    finally:
        farm.close()


@pytest.mark.slow
def test_run_and_logs_go_on_at_the_right_byte(farm):
    farm.add_worker("w1")
    attended = farm.start("run", "--on", "w1", "--", "sh", "-c", COMMAND)
    assert attended.stdout is not None
    begun = attended.stdout.readline()
    follower = farm.start("logs", "last", "-f", "--channel", "stdout", "--from-line", "3")
    assert follower.stdout is not None
    followed = os.read(follower.stdout.fileno(), 1)
    for _ in range(2):
        time.sleep(1)
        farm.master.stop(signal.SIGKILL)
        assert attended.stderr is not None
        time.sleep(0.5)
        farm.master = farm.serve_master()
    shown, said = attended.communicate(timeout=120)
    assert begun + shown == WHOLE
    assert attended.returncode == 5
    assert said == NOTE * 2
    shown, said = follower.communicate(timeout=60)
    assert followed + shown == WHOLE.split(b"\n", 2)[2]
    assert (follower.returncode, said) == (0, NOTE * 2)
    assert farm.tailrace("verify", "last").stdout.rstrip().endswith(b"ok")


@pytest.mark.slow
async def test_two_hundred_workers_are_back_soon(farm, tmp_path):
    names = {f"w{number}": "" for number in range(WORKERS)}
    farm.master.stop()
    for name in names:
        names[name] = config.add_worker(farm.state, name)
    farm.master = farm.serve_master()
    arrivals: dict[str, int] = dict.fromkeys(names, 0)
    async with trio.open_nursery() as nursery:
        for name, secret in names.items():
            nursery.start_soon(work, farm.urls[0], name, secret, arrivals)
        await all_are(arrivals, 1)
        await trio.to_thread.run_sync(farm.master.stop, signal.SIGKILL)
        farm.master = await trio.to_thread.run_sync(farm.serve_master)
        begun = trio.current_time()
        await all_are(arrivals, 2)
        print(f"{WORKERS} workers were back after {trio.current_time() - begun:.1f} s", file=sys.stderr)
        nursery.cancel_scope.cancel()


async def all_are(arrivals: dict[str, int], count: int) -> None:
    with trio.fail_after(BACK_S):
        while min(arrivals.values()) < count:  # noqa: ASYNC110 - they say it to nobody
            await trio.sleep(0.05)


async def work(url: str, name: str, secret: str, arrivals: dict[str, int]) -> None:
    """A light worker, which attaches again with the daemon's pauses."""
    async with trio.open_nursery() as nursery:
        handler, holdings, pause_s = Handler(nursery), Holdings(nursery), BACKOFF_FIRST_S
        while True:
            with suppress(TailraceError, OSError):
                async with dial(
                    url, name=name, secret=secret, instance=name, handler=handler, holdings=holdings
                ) as connection:
                    arrivals[name] += 1
                    pause_s = BACKOFF_FIRST_S
                    await connection.wait_closed()
            await trio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * BACKOFF_FACTOR, BACKOFF_MAX_S)
