"""A log's way over Buildbot's wires: each end ours or Buildbot's own, four pairs for each wire.

`buildbot` and `buildbot-worker` are the dev dependencies, and run as processes. Both are told to log as they are
shipped, so that on msgpack Buildbot's own ends also write every payload to their log.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import trio

import stream
from farm import child, start_worker
from row import Options, Row, in_turn, median, medians
from stream import MEGABYTE, Figure

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
WIRES = ("pb", "msgpack")
PROTOCOLS = {"pb": "pb", "msgpack": "msgpack_experimental_v7"}
TAC = """
from twisted.application import service
from buildbot_worker.bot import Worker
application = service.Application('buildbot-worker')
Worker("127.0.0.1", {port}, "w", "s", {home!r}, 600, protocol={protocol!r}).setServiceParent(application)
"""


def start_theirs(endpoint: str, home: str) -> subprocess.Popen[bytes]:
    """Buildbot's own worker, as a process."""
    wire, _, address = endpoint.partition("://")
    port = int(address.rpartition(":")[2])
    (Path(home) / "info").mkdir()
    (Path(home) / "buildbot.tac").write_text(TAC.format(port=port, home=home, protocol=PROTOCOLS[wire]))
    command = [str(BIN / "buildbot-worker"), "start", "--nodaemon", home]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def at_ours(wire: str, lines: int, *, ours: bool) -> Figure:
    """At our master: our worker, or Buildbot's."""
    return trio.run(stream.ours, "block", lines, wire, start_worker if ours else start_theirs)


def at_theirs(wire: str, lines: int, *, ours: bool) -> Figure:
    """At Buildbot's master: our worker, or its own."""
    # Away from this directory, which is not to be searched for modules.
    master = subprocess.Popen(
        [sys.executable, "-P", HERE / "buildbot_master.py", wire],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert master.stdin is not None
    assert master.stdout is not None
    with tempfile.TemporaryDirectory() as home, master:
        port = master.stdout.readline().split()[1]
        worker = (start_worker if ours else start_theirs)(f"{wire}://127.0.0.1:{port}", home)
        try:
            print(shlex.join([child(), "block", str(lines)]), file=master.stdin, flush=True)
            said = json.loads(master.stdout.readline())
        finally:
            worker.terminate()
            worker.wait()
            master.stdin.close()
    assert (said["rc"], said["bytes"]) == (0, lines * 80), said
    return Figure(said["bytes"] / said["took"] / MEGABYTE, said["cpu"] / (said["bytes"] / 1e9))


def rows(options: Options) -> Iterator[Row]:
    """Each end ours or Buildbot's own; every round has all four pairs of a wire."""
    for wire in WIRES:
        yield from _rows(wire, int(2_000_000 * options.scale), options.rounds)


def _rows(wire: str, lines: int, rounds: int) -> Iterator[Row]:
    found = in_turn(
        rounds,
        theirs=lambda: at_theirs(wire, lines, ours=False),
        master=lambda: at_ours(wire, lines, ours=False),
        worker=lambda: at_theirs(wire, lines, ours=True),
        # At ten times the speed it needs more to be measured.
        pair=lambda: at_ours(wire, 2 * lines, ours=True),
    )
    speed = medians(found, lambda figure: figure.megabytes_s)
    cpu = medians(found, lambda figure: figure.cpu_s_per_gb)
    busy = median(found["worker"], lambda figure: figure.busy)
    yield Row(
        job=f"{wire}: Buildbot's worker, our master: its CPU",
        unit="s/GB",
        ours=cpu["master"],
        peer="Buildbot's master",
        theirs=cpu["theirs"],
        at_most=0.333,
        more={"megabytes_s": speed["master"], "their_megabytes_s": speed["theirs"]},
    )
    yield Row(
        job=f"{wire}: our worker, Buildbot's master",
        unit="MB/s",
        ours=speed["worker"],
        peer="Buildbot's worker",
        theirs=speed["theirs"],
        at_least=3,
        # Near 1, that master is the limit.
        more={"master_core": busy},
    )
    yield Row(job=f"{wire}: our worker and master", unit="MB/s", ours=speed["pair"], at_least=150)
