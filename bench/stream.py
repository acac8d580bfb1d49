"""A log's way from the child to an Impl that counts, beside the bare pipeline that can do nothing else.

The bare pipeline: child → pipe → trio → loopback TCP → trio, reads of 256 KiB, counting newlines.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import trio

from farm import Counter, child, connected, start_worker
from row import Options, Row, in_turn, median

MEGABYTE = 1_000_000
RELAY = Path(__file__).with_name("relay.py")


@attrs.frozen
class Figure:
    """One run: bytes a second, and the CPU seconds of the receiving process for each gigabyte."""

    megabytes_s: float
    cpu_s_per_gb: float

    @property
    def busy(self) -> float:
        """How much of one core the receiving process used: near 1, it is the limit."""
        return self.cpu_s_per_gb * self.megabytes_s * MEGABYTE / 1e9


async def ours(
    mode: str,
    lines: int,
    wire: str = "tailrace",
    start: Callable[[str, str], subprocess.Popen[bytes]] = start_worker,
) -> Figure:
    async with connected(wire, start) as (conn, _):
        counter = Counter()
        began, cpu = time.perf_counter(), time.process_time()
        await conn.remoteStartCommand(
            counter, "bench", "1", "shell", {"command": [child(), mode, str(lines)], "workdir": "."}
        )
        await counter.done.wait()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        assert (counter.rc, counter.bytes, counter.lines) == (0, lines * 80, lines), counter
        return Figure(counter.bytes / took / MEGABYTE, cpu / (counter.bytes / 1e9))


async def bare(mode: str, lines: int) -> Figure:
    """The limit: the same bytes through two trio processes with nothing in between."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    began, cpu = time.perf_counter(), time.process_time()
    relay = subprocess.Popen([sys.executable, str(RELAY), str(port), child(), mode, str(lines)])
    async with listener, await listener.accept() as stream:
        began, cpu = time.perf_counter(), time.process_time()
        received = newlines = 0
        while data := await stream.receive_some(262_144):
            received += len(data)
            newlines += data.count(b"\n")
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await trio.to_thread.run_sync(relay.wait)
    assert (received, newlines) == (lines * 80, lines)
    return Figure(received / took / MEGABYTE, cpu / (received / 1e9))


def rows(options: Options) -> Iterator[Row]:
    """The figures of one log."""
    yield from _beside("blocks of 80-byte lines", "block", int(12_500_000 * options.scale), options.rounds, 0.8)
    yield from _beside("one write a line", "line", int(2_500_000 * options.scale), options.rounds, 0.85)
    yield from _beside("one byte a write", "byte", int(12_500 * options.scale), options.rounds, 0.8)


def _beside(job: str, mode: str, lines: int, rounds: int, at_least: float) -> Iterator[Row]:
    found = in_turn(rounds, bare=lambda: trio.run(bare, mode, lines), ours=lambda: trio.run(ours, mode, lines))
    speed, limit = (median(found[whose], lambda figure: figure.megabytes_s) for whose in ("ours", "bare"))
    cpu, floor = (median(found[whose], lambda figure: figure.cpu_s_per_gb) for whose in ("ours", "bare"))
    yield Row(job=job, unit="MB/s", ours=speed, peer="bare pipeline", theirs=limit, at_least=at_least)
    yield Row(job=f"{job}: master's CPU", unit="s/GB", ours=cpu, peer="bare pipeline", theirs=floor, at_most=1.3)
