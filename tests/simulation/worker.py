"""A worker's machine: a daemon that dies and comes back, and children that do not care."""

from __future__ import annotations

import random

import trio

from tailrace.errors import RemoteError, TailraceError, UnknownCommand
from tailrace.limits import Limits
from tailrace.link.dial import dial_stream
from tailrace.link.holdings import Holdings

from .child import Child, Source
from .network import Network
from .oracle import Oracle
from .transfer import download, upload

NAME, SECRET = "w1", "a secret of the simulation"


class WorkerMachine:
    """`run` is its life. Children run in `world`, which outlives every daemon."""

    def __init__(
        self, network: Network, oracle: Oracle, rng: random.Random, limits: Limits, world: trio.Nursery
    ) -> None:
        self.lives = 0
        self.sessions = 0
        """Connections that came as far as the login."""
        self.children: list[Child] = []
        """Those whose end is not delivered: what lies in the base directory."""
        self._network = network
        self._oracle = oracle
        self._rng = rng
        self._limits = limits
        self._world = world
        self._daemon: Daemon | None = None
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """One daemon after another."""
        while True:
            self.lives += 1
            self._daemon = daemon = Daemon(self, self._network, self._oracle, self._rng, self._limits)
            with trio.CancelScope() as self._scope:
                await daemon.run()
            await trio.sleep(self._rng.random())

    def crash(self) -> None:
        """`kill -9` of the daemon. Nothing that it does from now on counts, its transports are gone."""
        if self._daemon is not None and self._daemon.alive:
            self._daemon.alive = False
            self._network.break_all()
            self._scope.cancel()

    def bear(self, child: Child) -> None:
        self._oracle.born(child)
        self.children.append(child)
        self._world.start_soon(child.run)

    def bury(self, child: Child) -> None:
        self.children.remove(child)


class Daemon:
    """One process."""

    def __init__(
        self, machine: WorkerMachine, network: Network, oracle: Oracle, rng: random.Random, limits: Limits
    ) -> None:
        self.alive = True
        self._machine = machine
        self._network = network
        self._oracle = oracle
        self._rng = rng
        self._limits = limits
        self._nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            holdings = Holdings(self._nursery)
            for child in list(self._machine.children):
                source = self._source(child)
                self._nursery.start_soon(self._send, child, holdings.adopt(child.key, source), source)
            while True:
                await self._attach(holdings)
                await trio.sleep(self._rng.random() * 0.5)

    async def _attach(self, holdings: Holdings) -> None:
        try:
            wire = await self._network.connect()
            async with dial_stream(
                wire,
                name=NAME,
                secret=SECRET,
                instance="i1",
                handler=self,
                limits=self._limits,
                holdings=holdings,
            ) as connection:
                self._machine.sessions += 1
                why = await connection.wait_closed()
                self._oracle.parted(why)
        except TailraceError as error:
            self._oracle.parted(error)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _source(self, child: Child) -> Source:
        return Source(child, self._oracle.acknowledged, lambda: self.alive)

    async def _send(self, child: Child, proxy, source: Source) -> None:
        """As the worker does with a command: send its journal; whom nobody wants is interrupted."""
        try:
            await proxy.send(source)
        except RemoteError:
            if self.alive:
                self._machine.bury(child)
                child.interrupt()
                self._oracle.forgotten(child)
        else:
            if self.alive:
                self._machine.bury(child)
                self._oracle.delivered(child)

    # ------------------------------------------------------------ what the master calls: see `WorkerHandler`

    def attached(self, master: str) -> None:
        pass

    async def print(self, message: str) -> None:
        pass

    async def getWorkerInfo(self):
        await trio.lowlevel.checkpoint()
        return {"encoding": "utf-8", "basedir": "/w"}

    async def setBuilderList(self, builders):
        await trio.lowlevel.checkpoint()
        return [name for name, _ in builders]

    async def startBuild(self, builder: str) -> None:
        pass

    async def startCommand(self, builder, command, name, args, proxy) -> None:
        await trio.lowlevel.checkpoint()
        if not self.alive:
            return
        if name == "uploadFile":
            self._nursery.start_soon(upload, args, proxy)
            return
        if name == "downloadFile":
            self._nursery.start_soon(download, args, proxy, self._oracle)
            return
        if name != "shell":
            raise UnknownCommand(f"there is no command {name!r}")
        child = Child(
            key=proxy.key,
            rng=random.Random(args["seed"]),
            pieces=args["pieces"],
            piece_bytes=args["piece_bytes"],
            pause_s=args["pause_s"],
        )
        self._machine.bear(child)
        self._nursery.start_soon(self._send, child, proxy, self._source(child))

    async def interruptCommand(self, builder, command, why) -> None:
        await trio.lowlevel.checkpoint()
        for child in self._machine.children:
            if child.key.command == command and self.alive:
                child.interrupt()

    async def shutdown(self) -> None:
        pass
