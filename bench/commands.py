"""Short commands, and how soon things happen: beside Buildbot's own master and worker, with `TCP_NODELAY` set on both.

* `true`: commands a second, each awaited, one after another or ten at a time.
* An interrupt in a flood: from the call of `remoteInterruptCommand` until the child had the signal, by its own clock.
  Then the same after the master was busy for two seconds and read nothing, with one flood queued, and with four.
* A lone line: from the child's write until `remote_update` has it; the child lives on and says no more.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

import tailrace
from farm import Counter, child, connected
from row import Options, Row, in_turn, median

HERE = Path(__file__).parent
PEER = "Buildbot with nodelay"
BUILDERS = [f"bench{number}" for number in range(10)]
FLOOD_S = 0.1
BUSY_S = 2.0
TAC = """
import sys
sys.path.insert(0, {here!r})
import nodelay
nodelay.switch_on()
from twisted.application import service
from buildbot_worker.bot import Worker
application = service.Application('buildbot-worker')
Worker("127.0.0.1", {port}, "w", "s", {home!r}, 600).setServiceParent(application)
"""


@attrs.define
class Line(Counter):
    """Notes when the first output came, and what it was."""

    first: trio.Event = attrs.field(factory=trio.Event)
    came: float = 0.0
    said: str = ""

    async def remote_update(self, updates: tailrace.Updates) -> None:
        if "stdout" in updates and not self.first.is_set():
            self.came, self.said = time.monotonic(), updates["stdout"]
            self.first.set()
        await super().remote_update(updates)


class Jobs:
    """What is measured, over one Connection."""

    def __init__(self, conn: tailrace.Connection) -> None:
        self._conn = conn
        self._number = 0

    async def _start(self, counter: Counter, builder: str, command: list[str], **args: object) -> str:
        self._number += 1
        name = str(self._number)
        await self._conn.remoteStartCommand(
            counter, builder, name, "shell", {"command": command, "workdir": ".", **args}
        )
        return name

    async def true(self, count: int, at_once: int) -> float:
        """Commands a second."""
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for builder in BUILDERS[:at_once]:
                nursery.start_soon(self._row_of_true, builder, count // at_once)
        return count // at_once * at_once / (time.perf_counter() - began)

    async def _row_of_true(self, builder: str, count: int) -> None:
        for _ in range(count):
            counter = Counter()
            await self._start(counter, builder, ["true"])
            await counter.done.wait()
            assert counter.rc == 0, counter

    async def interrupt(self, child: str, samples: int, floods: int, busy_s: float) -> list[float]:
        """Milliseconds until the child had the signal: of the first flood that is interrupted."""
        found = []
        with tempfile.TemporaryDirectory() as home:
            for _ in range(samples):
                running = [(builder, Line(), Path(home, builder)) for builder in BUILDERS[:floods]]
                names = [
                    await self._start(counter, builder, [child, "flood", str(file)], interruptSignal="TERM")
                    for builder, counter, file in running
                ]
                for _, counter, _ in running:
                    await counter.first.wait()
                await trio.sleep(FLOOD_S)
                time.sleep(busy_s)  # noqa: ASYNC251 - this is the master that is busy
                for (builder, counter, file), name in zip(running, names, strict=True):
                    began = time.monotonic()
                    await self._conn.remoteInterruptCommand(builder, name, "bench")
                    await counter.done.wait()
                    if builder == BUILDERS[0]:
                        found.append((float(file.read_text()) - began) * 1000)
        return found

    async def line(self, child: str, samples: int) -> list[float]:
        """Milliseconds until the line was there, one after another."""
        found = []
        for _ in range(samples):
            line = Line()
            name = await self._start(line, BUILDERS[0], [child, "line"])
            await line.first.wait()
            found.append((line.came - float(line.said)) * 1000)
            await self._conn.remoteInterruptCommand(BUILDERS[0], name, "bench")
            await line.done.wait()
        return found


async def ours(job: str, **options: object) -> object:
    async with connected() as (conn, _):
        await conn.remoteSetBuilderList([(builder, builder) for builder in BUILDERS])
        return await getattr(Jobs(conn), job)(**options)


def theirs(job: str, **options: object) -> object:
    with _buildbot() as master:
        assert master.stdin is not None
        assert master.stdout is not None
        print(json.dumps({"job": job, **options}), file=master.stdin, flush=True)
        return json.loads(master.stdout.readline())


@contextmanager
def _buildbot() -> Iterator[subprocess.Popen[str]]:
    """Its master, with its worker."""
    master = subprocess.Popen(
        [sys.executable, HERE / "buildbot_commands.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert master.stdin is not None
    assert master.stdout is not None
    with tempfile.TemporaryDirectory() as home, master:
        port = master.stdout.readline().split()[1]
        (Path(home) / "info").mkdir()
        (Path(home) / "buildbot.tac").write_text(TAC.format(here=str(HERE), port=port, home=home))
        command = [str(Path(sys.executable).parent / "buildbot-worker"), "start", "--nodaemon", home]
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield master
        finally:
            worker.terminate()
            worker.wait()
            master.stdin.close()


def rows(options: Options) -> Iterator[Row]:
    """`true`, the interrupts, and the line."""
    scale, rounds = options.scale, options.rounds
    yield _true("true, one after another", rounds, 2.5, at_once=1, count=int(600 * scale), their_count=int(200 * scale))
    yield _true("true, ten at once", rounds, 3, at_once=10, count=int(900 * scale), their_count=int(300 * scale))
    if scale < 1:
        rounds = 1
    often, seldom = max(2, int(20 * scale)), max(1, int(3 * scale))
    yield from _late("interrupt in a flood", 10, "interrupt", rounds, samples=often, floods=1, busy_s=0.0)
    for floods in (1, 4):
        row = f"interrupt after 2 s busy, floods: {floods}"
        yield from _late(row, 50, "interrupt", rounds, samples=seldom, floods=floods, busy_s=BUSY_S)
    yield from _late("first lone line", 20, "line", rounds, samples=often)


def _true(row: str, rounds: int, at_least: float, *, at_once: int, count: int, their_count: int) -> Row:
    found = in_turn(
        rounds,
        theirs=lambda: theirs("true", count=their_count, at_once=at_once),
        ours=lambda: trio.run(partial(ours, "true", count=count, at_once=at_once)),
    )
    speed, peer = median(found["ours"]), median(found["theirs"])
    return Row(job=row, unit="/s", ours=speed, peer=PEER, theirs=peer, at_least=at_least)


def _late(row: str, at_most_ms: float, job: str, rounds: int, **options: float) -> Iterator[Row]:
    """How late it was, of the samples of all rounds together: the target is for us alone."""
    found = in_turn(
        rounds,
        theirs=lambda: theirs(job, child=child("timed"), **options),
        ours=lambda: trio.run(partial(ours, job, child=child("timed"), **options)),
    )
    late = [sample for samples in found["ours"] for sample in samples]
    their_late = [sample for samples in found["theirs"] for sample in samples]
    more = {"p50": part(late, 0.5), "their_p50": part(their_late, 0.5), "their_p99": part(their_late, 0.99)}
    more |= {"samples": len(late), "worst": max(late)}
    yield Row(job=f"{row}, p99", unit="ms", ours=part(late, 0.99), at_most=at_most_ms, more=more)
    yield Row(job=f"{row}, p50", unit="ms", ours=more["p50"], peer=PEER, theirs=more["their_p50"])


def part(samples: list[float], share: float) -> float:
    """The smallest sample that is not exceeded by this share of all."""
    return sorted(samples)[math.ceil(len(samples) * share) - 1]
