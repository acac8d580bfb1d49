"""Buildbot's own master stack under short commands and interrupts, over Perspective Broker with `TCP_NODELAY`.

Prints `port N`, as `buildbot_master.py` does; then each line of JSON on its stdin is a job, answered by one line:

    {"job": "true", "count": N, "at_once": M}                           commands a second
    {"job": "interrupt", "samples": N, "floods": M, "busy_s": S}        milliseconds until the child had the signal
    {"job": "line", "samples": N}                                       milliseconds until the line was there
"""

from __future__ import annotations

import json
import os
import tempfile
import time

from twisted.internet import defer, reactor, task
from twisted.protocols.basic import LineOnlyReceiver

import nodelay
from buildbot_master import Counter, give_up, serve, shell

BUILDERS = [f"bench{number}" for number in range(10)]
FLOOD_S = 0.1


class Line(Counter):
    """Notes when the first output came, and what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.first = defer.Deferred()

    def remote_update(self, updates: list) -> int:
        now = time.monotonic()
        for update, _number in updates:
            if "stdout" in update and not self.first.called:
                self.first.callback((now, update["stdout"]))
        return super().remote_update(updates)


class Jobs(LineOnlyReceiver):
    """Jobs from stdin, one after another; its end is the end."""

    delimiter = b"\n"

    def __init__(self, attached: defer.Deferred) -> None:
        self._conn = attached
        self._number = 0

    def lineReceived(self, line: bytes) -> None:
        job = json.loads(line)
        self._do(job.pop("job"), job).addErrback(give_up)

    @defer.inlineCallbacks
    def _do(self, job: str, options: dict) -> object:
        if isinstance(self._conn, defer.Deferred):
            self._conn = yield self._conn
        do = {"true": self._true, "interrupt": self._interrupt, "line": self._line}[job]
        said = yield do(**options)
        print(json.dumps(said), flush=True)

    @defer.inlineCallbacks
    def _start(self, counter: Counter, builder: str, command: list[str], **args: object) -> object:
        self._number += 1
        name = str(self._number)
        yield self._conn.remoteStartCommand(counter, builder, name, "shell", {**shell(command), **args})
        return name

    @defer.inlineCallbacks
    def _true(self, count: int, at_once: int) -> object:
        began = time.perf_counter()
        yield defer.gatherResults([self._row_of_true(builder, count // at_once) for builder in BUILDERS[:at_once]])
        return count // at_once * at_once / (time.perf_counter() - began)

    @defer.inlineCallbacks
    def _row_of_true(self, builder: str, count: int) -> object:
        for _ in range(count):
            counter = Counter()
            yield self._start(counter, builder, ["true"])
            yield counter.done
            assert counter.rc == 0, counter.rc

    @defer.inlineCallbacks
    def _interrupt(self, child: str, samples: int, floods: int, busy_s: float) -> object:
        found = []
        with tempfile.TemporaryDirectory() as home:
            for _ in range(samples):
                running = [(builder, Line(), os.path.join(home, builder)) for builder in BUILDERS[:floods]]
                names = []
                for builder, counter, file in running:
                    name = yield self._start(counter, builder, [child, "flood", file], interruptSignal="TERM")
                    names.append(name)
                for _, counter, _ in running:
                    yield counter.first
                yield task.deferLater(reactor, FLOOD_S, lambda: None)
                time.sleep(busy_s)
                for (builder, counter, file), name in zip(running, names, strict=True):
                    began = time.monotonic()
                    yield self._conn.remoteInterruptCommand(builder, name, "bench")
                    yield counter.done
                    if builder == BUILDERS[0]:
                        with open(file) as said:
                            found.append((float(said.read()) - began) * 1000)
        return found

    @defer.inlineCallbacks
    def _line(self, child: str, samples: int) -> object:
        found = []
        # At once, as each takes seconds.
        for begin in range(0, samples, len(BUILDERS)):
            running = [(builder, Line()) for builder in BUILDERS[: samples - begin]]
            names = []
            for builder, counter in running:
                name = yield self._start(counter, builder, [child, "line"])
                names.append(name)
            for (builder, counter), name in zip(running, names, strict=True):
                now, text = yield counter.first
                found.append((now - float(text)) * 1000)
                yield self._conn.remoteInterruptCommand(builder, name, "bench")
                yield counter.done
        return found

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


if __name__ == "__main__":
    nodelay.switch_on()
    serve("pb", Jobs, BUILDERS).addErrback(give_up)
    reactor.run()
