"""A master with workers that do as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from tailrace.errors import UnknownCommand
from tailrace.link.dial import dial
from tailrace.master import Master, open_master


@attrs.define(slots=False)
class Order:
    """One command as its worker sees it."""

    id: str
    builder: str
    args: dict
    proxy: object
    interrupted: trio.Event = attrs.field(factory=trio.Event)

    async def say(self, **updates):
        await self.proxy.callRemote("update", updates)

    async def end(self, rc=0, **updates):
        await self.proxy.callRemote("update", {**updates, "rc": rc})
        await self.proxy.callRemote("complete")


@attrs.define(slots=False)
class ScriptedWorker:
    """Knows the commands in `scripts`, and plays them."""

    nursery: trio.Nursery
    scripts: dict[str, Callable[[Order], Awaitable[None]]]
    builders: dict[str, str] = attrs.field(factory=dict)
    orders: dict[str, Order] = attrs.field(factory=dict)
    reasons: list[str] = attrs.field(factory=list)
    connection: object = None

    async def print(self, message):
        pass

    async def getWorkerInfo(self):
        return {"system": "posix", "environ": {"PASSWORD": "hidden"}}

    async def setBuilderList(self, builders):
        self.builders = dict(builders)
        return list(self.builders)

    async def startBuild(self, builder):
        pass

    async def startCommand(self, builder, command, name, args, proxy):
        if name not in self.scripts:
            raise UnknownCommand(name)
        self.orders[command] = order = Order(command, builder, args, proxy)
        self.nursery.start_soon(self.scripts[name], order)

    async def interruptCommand(self, builder, command, why):
        self.reasons.append(why)
        if command in self.orders:
            self.orders[command].interrupted.set()

    async def shutdown(self):
        pass

    def attached(self, master):
        pass


class Farm:
    def __init__(self, master: Master, nursery: trio.Nursery) -> None:
        self.master = master
        self.nursery = nursery

    async def attach(self, name="w1", *, secret=None, instance="i1", **scripts) -> ScriptedWorker:
        """A worker of that name, when the master has it."""
        worker = ScriptedWorker(self.nursery, scripts)
        await self.nursery.start(partial(self._serve, name, secret or f"secret of {name}", instance, worker))
        await self.master.wait_for_worker(name)
        return worker

    async def _serve(self, name, secret, instance, worker, task_status):
        endpoint = self.master.endpoints[0]
        async with dial(endpoint, name=name, secret=secret, instance=instance, handler=worker) as connection:
            worker.connection = connection
            task_status.started()
            await connection.wait_closed()


@asynccontextmanager
async def open_farm(state_dir=None) -> AsyncIterator[Farm]:
    accounts = {name: f"secret of {name}" for name in ("w1", "w2")}
    listen = ["tailrace://127.0.0.1:0"]
    async with open_master(state_dir, listen=listen, accounts=accounts) as master, trio.open_nursery() as nursery:
        yield Farm(master, nursery)
        nursery.cancel_scope.cancel()
