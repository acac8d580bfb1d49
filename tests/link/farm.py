"""A master and a worker on one fake wire, for the tests of the link."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from tailrace.errors import ConnectionLost, RemoteError, UnknownCommand
from tailrace.limits import Limits
from tailrace.link.connection import Connection
from tailrace.link.dial import dial_stream
from tailrace.link.impl import FileReaderImpl, FileWriterImpl, RemoteCommandImpl
from tailrace.link.listener import Listener

SECRET = "a secret of the tests"


class Master:
    """Takes everybody. `script`, if given, is run as `newConnection`."""

    masterId = "the-master"

    def __init__(self, script=None):
        self.script = script
        self.connections = []

    async def newConnection(self, conn, workerName):
        self.connections.append(conn)
        return True if self.script is None else await self.script(conn, workerName)


class Handler:
    """A worker whose commands are async functions `(proxy, args, interrupted)`, which run in `nursery`."""

    def __init__(self, nursery, **commands):
        self.nursery = nursery
        self.commands = {"hello": say_hello, "wait": run_until_interrupted, **commands}
        self.calls = []
        self.info = {"encoding": "utf-8", "basedir": "/w"}
        self.interrupts = {}
        self.answers = trio.Event()
        self.answers.set()

    async def print(self, message):
        self.calls.append(("print", message))
        await self.answers.wait()

    async def getWorkerInfo(self):
        return self.info

    async def setBuilderList(self, builders):
        self.calls.append(("setBuilderList", builders))
        return [name for name, _ in builders]

    async def startBuild(self, builder):
        self.calls.append(("startBuild", builder))

    async def startCommand(self, builder, command, name, args, proxy):
        self.calls.append(("startCommand", builder, command, name, args))
        if name not in self.commands:
            raise UnknownCommand(f"there is no command {name!r}")
        self.interrupts[command] = trio.Event()
        self.nursery.start_soon(self._run, self.commands[name], proxy, args, self.interrupts[command])

    async def _run(self, command, *args):
        try:
            await command(*args)
        except ConnectionLost:
            pass
        except RemoteError as error:
            if error.type != "Forgotten":
                raise

    async def interruptCommand(self, builder, command, why):
        self.calls.append(("interruptCommand", builder, command, why))
        if command in self.interrupts:
            self.interrupts[command].set()

    async def shutdown(self):
        self.calls.append(("shutdown",))

    def attached(self, master):
        pass


class Recorder(RemoteCommandImpl):
    """Keeps what it is told. `gate` holds up `remote_update` while it is not set."""

    def __init__(self):
        self.updates = []
        self.raw = b""
        self.completions = []
        self.busy = 0
        self.called = trio.Event()
        self.done = trio.Event()
        self.gate = trio.Event()
        self.gate.set()

    async def remote_update(self, updates):
        assert not self.busy
        assert not self.completions
        self.busy += 1
        self.updates.append(updates)
        self.called.set()
        try:
            await self.gate.wait()
            await trio.lowlevel.checkpoint()
            self.raw += b"".join(bytes(record) for record in updates.records)
        finally:
            self.busy -= 1

    async def remote_complete(self, failure=None):
        assert not self.busy
        self.completions.append(failure)
        self.done.set()

    def text(self, channel="stdout"):
        return "".join(updates.get(channel, "") for updates in self.updates)

    def merged(self):
        return {key: value for updates in self.updates for key, value in updates.items()}

    async def wait_done(self):
        with trio.fail_after(20):
            await self.done.wait()
        return self.completions[0]


class LateRecorder(Recorder):
    """Has the bytes safe when it says so, and not before."""

    durable_on_return = False


class Writer(FileWriterImpl):
    """Keeps a file in memory, and the order of the calls."""

    def __init__(self):
        self.data = bytearray()
        self.calls = []
        self.gate = trio.Event()
        self.gate.set()

    async def remote_write(self, data):
        self.calls.append(("write", len(data)))
        await self.gate.wait()
        self.data += data

    async def remote_utime(self, accessed_modified):
        self.calls.append(("utime", accessed_modified))

    async def remote_unpack(self):
        self.calls.append(("unpack",))

    async def remote_close(self):
        self.calls.append(("close",))


class Reader(FileReaderImpl):
    """Gives bytes out of memory."""

    def __init__(self, data):
        self.data = memoryview(data)
        self.reads = []
        self.closed = 0

    async def remote_read(self, maxLength):
        self.reads.append(maxLength)
        await trio.lowlevel.checkpoint()
        data, self.data = self.data[:maxLength], self.data[maxLength:]
        return bytes(data)

    async def remote_close(self):
        self.closed += 1


async def say_hello(proxy, args, interrupted):
    """The shortest command."""
    await proxy.callRemote("update", {"stdout": b"hello\n"})
    await proxy.callRemote("update", {"rc": 0})
    await proxy.callRemote("complete")


async def run_until_interrupted(proxy, args, interrupted):
    await proxy.callRemote("update", {"stdout": b"running\n"})
    await interrupted.wait()
    await proxy.callRemote("update", {"failure_reason": "interrupted", "rc": -1})
    await proxy.callRemote("complete")


@attrs.frozen(kw_only=True)
class Farm:
    """What `farm` makes."""

    master: Master
    listener: Listener
    handler: Handler
    worker: object
    conn: Connection
    nursery: trio.Nursery
    master_end: trio.StapledStream
    worker_end: trio.StapledStream

    async def start(self, impl, name="hello", args=None, *, command="1"):
        await self.conn.remoteStartCommand(impl, "b", command, name, args or {})


@asynccontextmanager
async def farm(*, limits=None, connection_class=Connection, master=None, builders=(("b", "dir"),), **commands):
    """One worker `w1`, attached, with a builder `b`, whose commands are `commands`."""
    limits = limits or Limits()
    master = master or Master()
    listener = Listener(master, "tailrace://127.0.0.1:0", limits=limits, connection_class=connection_class)
    listener.updateRegistration("w1", SECRET)
    master_end, worker_end = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        handler = Handler(nursery, **commands)
        nursery.start_soon(listener.serve_stream, master_end)
        async with dial_stream(
            worker_end, name="w1", secret=SECRET, instance="i1", handler=handler, limits=limits
        ) as worker:
            conn = master.connections[0]
            if builders:
                await conn.remoteSetBuilderList(builders)
            yield Farm(
                master=master,
                listener=listener,
                handler=handler,
                worker=worker,
                conn=conn,
                nursery=nursery,
                master_end=master_end,
                worker_end=worker_end,
            )
        nursery.cancel_scope.cancel()
