"""What the benchmarks share: a listener whose Impl counts, and a worker in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

import tailrace

HERE = Path(__file__).parent
ATTACH_S = 60
WORKER = """
import sys, trio, tailrace
trio.run(lambda: tailrace.run_worker(master=sys.argv[1], name="w", secret="s", basedir=sys.argv[2]))
"""


@attrs.define
class Counter(tailrace.RemoteCommandImpl):
    """Counts bytes, lines and records, and looks at nothing else."""

    bytes: int = 0
    lines: int = 0
    records: int = 0
    rc: int | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    async def remote_update(self, updates: tailrace.Updates) -> None:
        for record in updates.records:
            if record.channel != "header":
                self.bytes += len(record)
                self.lines += record.lines
                self.records += 1
        if (rc := updates.get("rc")) is not None:
            self.rc = rc

    async def remote_complete(self, failure: BaseException | None = None) -> None:
        if failure is not None:
            print(f"the command failed: {failure}", file=sys.stderr)
        self.done.set()


class Master:
    """Takes the one worker."""

    def __init__(self) -> None:
        self.attached: trio.MemorySendChannel[tailrace.Connection]
        self.attached, self.workers = trio.open_memory_channel[tailrace.Connection](1)

    async def newConnection(self, conn: tailrace.Connection, workerName: str) -> bool:
        await conn.remoteSetBuilderList([("bench", "bench")])
        self.attached.send_nowait(conn)
        return True


def start_worker(endpoint: str, home: str) -> subprocess.Popen[bytes]:
    """Our worker, as a process."""
    return subprocess.Popen([sys.executable, "-c", WORKER, endpoint, home])


@asynccontextmanager
async def connected(
    wire: str = "tailrace", start: Callable[[str, str], subprocess.Popen[bytes]] = start_worker
) -> AsyncIterator[tuple[tailrace.Connection, subprocess.Popen[bytes]]]:
    """A Connection to a worker process over loopback TCP; both are gone afterwards."""
    master = Master()
    listener = tailrace.Listener(master, f"{wire}://127.0.0.1:0")
    listener.updateRegistration("w", "s")
    with tempfile.TemporaryDirectory() as home:
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.serve)
            worker = start(listener.endpoint, home)
            try:
                with trio.fail_after(ATTACH_S):
                    conn = await master.workers.receive()
                yield conn, worker
            finally:
                worker.terminate()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(worker.wait)
                nursery.cancel_scope.cancel()


def child(name: str = "child") -> str:
    """A child that is written in C: the writing one, or another. Compiled once."""
    program = HERE.parent / "target" / f"bench-{name}"
    program.parent.mkdir(exist_ok=True)
    source = HERE / f"{name}.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return str(program)
