"""Buildbot's own master stack, as far as a worker meets it: its `Listener` and `Connection`, and an Impl that counts.

No database, no steps, no logs: what is measured is the wire. `python buildbot_master.py pb|msgpack` prints `port N`,
then, for each line `PROGRAM MODE LINES` on its stdin, one line of JSON. It is a process of its own, because it has a
reactor of its own.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import TYPE_CHECKING

from buildbot.util import service
from buildbot.worker.protocols import msgpack, pb
from buildbot.worker.protocols.base import RemoteCommandImpl
from buildbot.worker.protocols.manager.msgpack import MsgManager
from buildbot.worker.protocols.manager.pb import PBManager
from twisted.internet import defer, reactor, stdio
from twisted.protocols.basic import LineOnlyReceiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.python.failure import Failure

LISTENERS = {"pb": (pb.Listener, "tcp:0:interface=127.0.0.1"), "msgpack": (msgpack.Listener, "0")}


class Counter(RemoteCommandImpl):
    """Counts characters and calls, and looks at nothing else."""

    def __init__(self) -> None:
        self.chars = self.calls = 0
        self.rc: int | None = None
        self.done = defer.Deferred()

    def remote_update(self, updates: list) -> int:
        self.calls += 1
        for update, _number in updates:
            self._count(update.items())
        return 0

    def remote_update_msgpack(self, updates: list) -> None:
        self.calls += 1
        self._count((key, value[0] if key in ("stdout", "stderr", "header") else value) for key, value in updates)

    def _count(self, entries: Iterable[tuple[str, object]]) -> None:
        for key, value in entries:
            if key == "stdout":
                self.chars += len(value)
            elif key == "rc":
                self.rc = value

    def remote_complete(self, failure: object = None) -> None:
        if failure is not None:
            print(f"the command failed: {failure}", file=sys.stderr)
        self.done.callback(None)


class Worker:
    """What a `Connection` wants of its worker."""

    workername = "w"

    def __init__(self, attached: defer.Deferred, builders: Sequence[str]) -> None:
        self._attached = attached
        self._builders = [(builder, builder) for builder in builders]

    @defer.inlineCallbacks
    def attached(self, conn: pb.Connection) -> object:
        yield conn.remoteGetWorkerInfo()
        yield conn.remoteSetBuilderList(self._builders)
        self._attached.callback(conn)

    def messageReceivedFromWorker(self) -> None:
        pass


class Workers:
    """Knows one worker, and takes it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def getWorkerByName(self, name: str) -> Worker:
        return self._worker

    def newConnection(self, conn: pb.Connection, name: str) -> defer.Deferred:
        return defer.succeed(True)


def shell(command: list[str]) -> dict:
    """The arguments of a `shell`, with all that a real master's steps say, and msgpack's workers insist on."""
    args = {"command": command, "workdir": ".", "logEnviron": False}
    args |= {"want_stdout": True, "want_stderr": True, "env": {}, "usePTY": False, "logfiles": {}}
    args |= {"timeout": 1200, "maxTime": None, "max_lines": None, "sigtermTime": None, "initial_stdin": None}
    return args


class Orders(LineOnlyReceiver):
    """Commands from stdin, one after another; its end is the end."""

    delimiter = b"\n"

    def __init__(self, attached: defer.Deferred) -> None:
        self._attached = attached
        self._number = 0

    def lineReceived(self, line: bytes) -> None:
        self._run(line).addErrback(give_up)

    @defer.inlineCallbacks
    def _run(self, line: bytes) -> object:
        conn = yield self._when_attached()
        self._number += 1
        counter = Counter()
        args = shell(shlex.split(line.decode()))
        began, cpu = time.perf_counter(), time.process_time()
        yield conn.remoteStartCommand(counter, "bench", f"bench-{self._number}", "shell", args)
        yield counter.done
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        said = {"bytes": counter.chars, "calls": counter.calls, "rc": counter.rc, "took": took, "cpu": cpu}
        print(json.dumps(said), flush=True)

    def _when_attached(self) -> defer.Deferred:
        waiting = defer.Deferred()
        self._attached.addCallback(lambda conn: (waiting.callback(conn), conn)[1])
        return waiting

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


@defer.inlineCallbacks
def serve(
    wire: str, take_orders: Callable[[defer.Deferred], LineOnlyReceiver], builders: Sequence[str] = ("bench",)
) -> object:
    """Listens, says where, and follows orders from stdin once the worker is there."""
    master = service.MasterService()
    master.reactor, master.initLock = reactor, defer.DeferredLock()
    master.pbmanager, master.msgmanager = PBManager(), MsgManager()
    attached = defer.Deferred()
    master.workers = Workers(Worker(attached, builders))
    yield master.pbmanager.setServiceParent(master)
    yield master.msgmanager.setServiceParent(master)
    yield master.startService()
    make, port = LISTENERS[wire]
    registration = yield make(master).updateRegistration("w", "s", port)
    stdio.StandardIO(take_orders(attached))
    print(f"port {registration.getPort()}", flush=True)


def give_up(failure: Failure) -> None:
    failure.printTraceback(sys.stderr)
    reactor.stop()


if __name__ == "__main__":
    serve(sys.argv[1], Orders).addErrback(give_up)
    reactor.run()
