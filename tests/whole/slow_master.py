"""A master whose Impl is slow, in a process of its own so that its memory can be measured. Prints JSON.

Usage: slow_master.py DIRECTORY MEGABYTES
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import trio

import tailrace

CHILD = "import os, sys\nb = b'x' * 79 + b'\\n'\nb *= 12500\nfor _ in range(int(sys.argv[1])): os.write(1, b)"
WORKER = """
import sys, trio, tailrace
trio.run(lambda: tailrace.run_worker(master=sys.argv[1], name="w", secret="s", basedir=sys.argv[2]))
"""


def memory(pid: int | str, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)


def supervisors(daemon: int) -> list[int]:
    """What each supervisor of this worker has in memory, in bytes. One that ends meanwhile does not count."""
    found: list[int] = []
    for child in children(daemon):
        with suppress(OSError, AssertionError):
            if b"-I" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                found.append(memory(child, "RssAnon"))
        found += supervisors(child)
    return found


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    return []


class Slow(tailrace.RemoteCommandImpl):
    """Takes what came, and then its time."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self.bytes = 0
        self.begun, self.done = trio.Event(), trio.Event()
        self.failure: BaseException | None = None
        self.values: dict[str, object] = {}

    async def remote_update(self, updates: tailrace.Updates) -> None:
        for record in updates.records:
            if record.channel == "stdout":
                self.bytes += len(record)
        for key in ("rc", "failure_reason"):
            if key in updates:
                self.values[key] = updates[key]
        self.begun.set()
        await trio.sleep(self.pause_s)

    async def remote_complete(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.done.set()


class Master:
    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[tailrace.Connection](1)

    async def newConnection(self, conn: tailrace.Connection, workerName: str) -> bool:
        await conn.remoteSetBuilderList([("b", "b")])
        await self.send.send(conn)
        return True


async def main(directory: str, megabytes: int) -> None:
    master = Master()
    listener = tailrace.Listener(master, "tailrace://127.0.0.1:0")
    listener.updateRegistration("w", "s")
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve)
        worker = subprocess.Popen([sys.executable, "-c", WORKER, listener.endpoint, directory])
        try:
            conn = await master.receive.receive()
            warm = Slow(0)
            await conn.remoteStartCommand(warm, "b", "warm", "shell", {"command": ["true"], "workdir": "."})
            await warm.done.wait()
            idle = {"master": memory("self", "VmRSS"), "worker": memory(worker.pid, "VmRSS")}
            slow = Slow(0.03)
            command = [sys.executable, "-c", CHILD, str(megabytes)]
            await conn.remoteStartCommand(slow, "b", "slow", "shell", {"command": command, "workdir": "."})
            await slow.begun.wait()
            with trio.move_on_after(0.5):
                await slow.done.wait()  # until every queue on the way is full
            latencies = []
            peak = 0
            for number in range(10):
                other = Slow(0)
                began = time.perf_counter()
                await conn.remoteStartCommand(
                    other,
                    "b",
                    f"o{number}",
                    "shell",
                    {"command": ["sh", "-c", "echo up; exec sleep 100"], "workdir": "."},
                )
                started = time.perf_counter()
                await other.begun.wait()
                answered = time.perf_counter()
                await conn.remoteInterruptCommand("b", f"o{number}", "test")
                await other.done.wait()
                ended = time.perf_counter()
                assert other.values == {"rc": -1, "failure_reason": "interrupted"}, other.values
                latencies.append((started - began, answered - began, ended - answered))
                peak = max(peak, *supervisors(worker.pid))
            await slow.done.wait()
            figures = {"master": memory("self", "VmHWM"), "worker": memory(worker.pid, "VmHWM")}
            await conn.remoteShutdown()  # it leaves nothing behind, which a signal might
            print(
                json.dumps(
                    {
                        "bytes": slow.bytes,
                        "rc": slow.values.get("rc"),
                        "failure": repr(slow.failure),
                        "master": figures["master"] - idle["master"],
                        "worker": figures["worker"] - idle["worker"],
                        "supervisor": peak,
                        "latencies": latencies,
                    }
                )
            )
        except BaseException:
            worker.terminate()
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(worker.wait)
            nursery.cancel_scope.cancel()


trio.run(main, sys.argv[1], int(sys.argv[2]))
