"""A master's machine: the shipped master with its store, on a disk that forgets, and a process that dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tailrace.errors import StoreError, TailraceError
from tailrace.limits import Limits
from tailrace.link.listener import Listener
from tailrace.logs import LogStore
from tailrace.master import Master, open_master
from tailrace.master.result import RunResult
from tailrace.master.runs import Run

from .disk import Disk
from .network import Network
from .oracle import Oracle
from .worker import NAME, SECRET


class MasterMachine:
    """`run` is its life: one process after another."""

    def __init__(self, network: Network, oracle: Oracle, disk: Disk, limits: Limits) -> None:
        self.lives = 0
        self._network = network
        self._oracle = oracle
        self._disk = disk
        self._limits = limits
        self._master: Master | None = None
        self._up = trio.Event()
        self._scope = trio.CancelScope()
        self._clients: set[trio.CancelScope] = set()

    async def run(self, downtime_s) -> None:
        """`downtime_s()`: how long it takes until somebody starts it again."""
        async with trio.open_nursery() as zombies:
            while True:
                # What a killed process still does is done in a directory that nobody looks at any more.
                ready, dead = trio.Event(), trio.Event()
                zombies.start_soon(self._live, ready, dead)
                await ready.wait()
                await dead.wait()
                await trio.sleep(downtime_s())

    def crash(self, *, power: bool) -> None:
        """`kill -9`, or the whole machine."""
        if self._master is not None:
            self._master = None
            self._up = trio.Event()
            self._network.listen(None)
            self._network.break_all()
            self._oracle.power_cuts += power
            self._disk.crash(power=power)
            self._scope.cancel()
            for client in self._clients:
                client.cancel()

    async def start(self, args: dict[str, object]) -> Run | None:
        """As a user does it; None: it did not come to that, or nobody knows."""
        with self._client() as client:
            master = await self._wait_master()
            try:
                await master.wait_for_worker(NAME)
                run = await master.start(NAME, "shell", args)
            except TailraceError:
                await trio.sleep(0.1)
                return None
            # From here on it is a promise.
            self._oracle.accepted.add(run.id)
            return run
        assert client.cancelled_caught
        return None

    async def transfer(self, command: str, args: dict[str, object]) -> RunResult | None:
        """A transfer to its end; None: nobody knows, since the master died."""
        with self._client():
            master = await self._wait_master()
            try:
                await master.wait_for_worker(NAME)
                return await (await master.transfer(NAME, command, args)).wait()
            except TailraceError:
                await trio.sleep(0.1)
        return None

    async def interrupt(self, run_id: str) -> None:
        with self._client(), contextlib.suppress(TailraceError):
            master = await self._wait_master()
            if (command := master.live(run_id)) is not None:
                await command.interrupt("the user")

    async def store(self) -> LogStore:
        """Of the process that lives now."""
        return (await self._wait_master()).store

    @property
    def connections(self) -> list:
        return [] if self._master is None else list(self._master.connections.values())

    @contextmanager
    def _client(self) -> Iterator[trio.CancelScope]:
        """Who asks a master that dies gets no answer."""
        with trio.CancelScope() as scope:
            self._clients.add(scope)
            try:
                yield scope
            finally:
                self._clients.discard(scope)

    async def _wait_master(self) -> Master:
        while self._master is None:
            await self._up.wait()
        return self._master

    async def _live(self, ready: trio.Event, dead: trio.Event) -> None:
        self.lives += 1
        with trio.CancelScope() as self._scope:
            try:
                async with (
                    open_master(self._disk.path, accounts={NAME: SECRET}, limits=self._limits) as master,
                    trio.open_nursery() as nursery,
                ):
                    await self._look(master)
                    listener = Listener(master, "tailrace://simulated:1", limits=self._limits)
                    listener.updateRegistration(NAME, SECRET)
                    self._network.listen(lambda wire: nursery.start_soon(listener.serve_stream, wire))
                    self._master = master
                    self._up.set()
                    ready.set()
                    await trio.sleep_forever()
            finally:
                ready.set()
                dead.set()

    async def _look(self, master: Master) -> None:
        """What the store has after the start is at least what was promised."""
        infos = await master.store.runs(limit=1000)
        ends = {}
        for info in infos:
            with contextlib.suppress(StoreError):  # of a run that is lost with all that there was of it
                async for batch in master.store.batches(info.id):
                    ends[info.id] = batch.end
        self._oracle.recovered(ends, {info.id for info in infos if info.state == "complete"})
