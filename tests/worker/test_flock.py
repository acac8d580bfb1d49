"""A farm of two hundred workers whose master goes and comes: the real way back of each, on a clock that jumps."""

from __future__ import annotations

import contextlib
import errno
import importlib

import pytest
import trio
import trio.testing

from tailrace.limits import Limits
from tailrace.link.holdings import Holdings
from tailrace.link.listener import Listener
from tailrace.worker.daemon import _Attacher, _Target

from ..link.farm import SECRET, Handler, Master  # noqa: TID252 - the same master as there

WORKERS = 200


class Flock:
    """A master that is there or not, and what its workers dial."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.listener = None
        self.attempts = 0

    @contextlib.asynccontextmanager
    async def master(self):
        async with trio.open_nursery() as serving:
            listener = Listener(Master(), "tailrace://127.0.0.1:0")
            for number in range(WORKERS):
                listener.updateRegistration(f"w{number}", SECRET)
            self.listener, self.serving = listener, serving
            try:
                yield listener
            finally:
                self.listener = None
                serving.cancel_scope.cancel()

    async def connect(self, where, tls):
        self.attempts += 1
        await trio.lowlevel.checkpoint()
        if self.listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self.serving.start_soon(self.listener.serve_stream, ours)
        return theirs


class Worker:
    """What an attacher asks of a worker, without supervisors."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.holdings = Holdings(nursery)
        self.stopped = trio.Event()
        self.ask_shutdown = None

    def attachment(self):
        handler = Handler(self.nursery)
        handler.lost = self.lost
        return handler

    async def lost(self, why):
        await trio.lowlevel.checkpoint()


async def wait_all(listener):
    while listener.statistics().attached < WORKERS or listener.statistics().handshakes:  # noqa: ASYNC110
        await trio.sleep(0.01)
    return trio.current_time()


@pytest.mark.parametrize("away_s", [0.5, 5, 600])
async def test_all_are_back_within_half_a_minute_of_their_master(away_s, autojump_clock, monkeypatch):
    async with trio.open_nursery() as nursery:
        flock = Flock(nursery)
        monkeypatch.setattr(importlib.import_module("tailrace.link.dial"), "connect", flock.connect)
        for number in range(WORKERS):
            target = _Target(
                endpoints=("tailrace://127.0.0.1:1",),
                name=f"w{number}",
                secret=SECRET,
                tls=None,
                limits=Limits(),
                tell=lambda state: None,
            )
            attacher = _Attacher(target, Worker(nursery), f"i{number}")
            nursery.start_soon(lambda attacher=attacher: attacher.run(reconnect=True))
        async with flock.master() as listener:
            await wait_all(listener)
        gone, flock.attempts = trio.current_time(), 0
        await trio.sleep(away_s)
        # Nobody is flooded, and nobody has given up.
        assert flock.attempts <= WORKERS * (12 + away_s / 10)
        async with flock.master() as listener:
            back = await wait_all(listener)
            assert back - gone - away_s < 30
        nursery.cancel_scope.cancel()
