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
from pathlib import Path

import trio

import stream
from farm import child, start_worker
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
