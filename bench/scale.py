"""Many workers at one master: what a quiet one costs, what a hundred at once reach, and what more of them cost.

The master is a process of its own (`crowd_master.py`), whose memory and CPU the kernel counts; the workers are many in
another one (`crowd.py`, or `quiet_crowd.py` where they run nothing), each with a loopback TCP connection of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import attrs

import process
from row import Options, Row, in_turn, median

HERE = Path(__file__).parent
KIB, MEGABYTE = 1024, 1_000_000
# Attached before anything is measured, so that what a master needs once is not counted.
WARM = 20
QUIET = 4
PIECE_BYTES = 64_000
FIXED_BYTES_S = 60 * MEGABYTE


@final
class Hall:
    """A master and its crowds."""

    def __init__(self, kind: str, workers: int) -> None:
        self._master = _python("crowd_master.py", kind, str(workers))
        self._endpoint = _line(self._master).split()[1]
        self._crowds: list[subprocess.Popen[str]] = []
        self._orders = 0

    @property
    def pid(self) -> int:
        return self._master.pid

    def attach(self, first: int, count: int, program: str = "crowd.py") -> float:
        """Bring workers. How long that took."""
        crowd = _python(program, self._endpoint, str(first), str(count))
        self._crowds.append(crowd)
        return float(_line(crowd).split()[1])

    def stream(self, workers: int, pieces: int, every_s: float = 0, called: Iterable[int] = (0,)) -> dict[str, Any]:
        """Have the first ones stream, and call others, or the same, meanwhile."""
        assert self._master.stdin is not None
        self._orders += 1
        order = {"id": self._orders, "workers": workers, "pieces": pieces, "size": PIECE_BYTES, "every_s": every_s}
        # Enough to have all of them started.
        order |= {"called": list(called), "lead_s": 1 + workers / 300 if every_s else 0}
        print(json.dumps(order), file=self._master.stdin, flush=True)
        return dict(json.loads(_line(self._master)))

    def close(self) -> None:
        for made in (*self._crowds, self._master):
            assert made.stdin is not None
            made.stdin.close()
            made.wait()


@contextmanager
def hall(kind: str, workers: int) -> Iterator[Hall]:
    made = Hall(kind, workers)
    try:
        yield made
    finally:
        made.close()


@attrs.frozen(kw_only=True)
class Idle:
    """What many quiet connections cost."""

    bytes_each: float
    connects_s: float
    connect_cpu_us: float
    core: float
    """The part of one core that they keep busy."""


def idle(kind: str, count: int, seconds: float) -> Idle:
    with hall(kind, count + WARM) as found:
        found.attach(count, WARM, "quiet_crowd.py")
        before, cpu = process.memory(found.pid), process.cpu_s(found.pid)
        took = found.attach(0, count, "quiet_crowd.py")
        connect_cpu = process.cpu_s(found.pid) - cpu
        each = (process.memory(found.pid) - before) / count
        cpu, began = process.cpu_s(found.pid), time.perf_counter()
        time.sleep(seconds)
        core = (process.cpu_s(found.pid) - cpu) / (time.perf_counter() - began)
        return Idle(bytes_each=each, connects_s=count / took, connect_cpu_us=1e6 * connect_cpu / count, core=core)


@attrs.frozen(kw_only=True)
class Streaming:
    """One worker's figure, and many workers'."""

    one_mb_s: float
    many_mb_s: float
    one_cpu: float
    many_cpu: float
    p50_s: float
    """Of a call to a worker of another process."""
    p99_s: float
    idle_bytes: int
    peak_bytes: int


def streaming(workers: int, total_bytes: int) -> Streaming:
    """The same bytes from one, and from many, at one master, as fast as they can."""
    quiet = range(workers, workers + QUIET)
    with hall("tailrace", workers + QUIET) as found:
        found.attach(0, workers)
        # Their process has nothing else to do: what a call waits for is the master's.
        found.attach(workers, QUIET)
        pieces = total_bytes // PIECE_BYTES
        found.stream(1, max(1, pieces // 10))
        one = found.stream(1, pieces)
        process.forget_peak(found.pid)
        idle_bytes = process.peak(found.pid)
        many = found.stream(workers, max(1, pieces // workers), called=quiet)
        return Streaming(
            one_mb_s=one["bytes"] / one["took"] / MEGABYTE,
            many_mb_s=many["bytes"] / many["took"] / MEGABYTE,
            one_cpu=one["cpu"] / (one["bytes"] / 1e9),
            many_cpu=many["cpu"] / (many["bytes"] / 1e9),
            p50_s=_percentile(many["latencies"], 0.5),
            p99_s=_percentile(many["latencies"], 0.99),
            idle_bytes=idle_bytes,
            peak_bytes=process.peak(found.pid),
        )


def fixed_rate(workers: int, seconds: float) -> float:
    """CPU seconds for each GB at the master, while so many send `FIXED_BYTES_S` together."""
    with hall("tailrace", workers) as found:
        found.attach(0, workers)
        found.stream(1, 100)
        pieces = FIXED_BYTES_S * seconds / PIECE_BYTES
        each = max(1, round(pieces / workers))
        window = found.stream(workers, each, every_s=seconds / each)["window"]
        return window["cpu"] / (window["bytes"] / 1e9)


def rows(options: Options) -> Iterator[Row]:
    """The figures of a farm."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    yield from _idle(max(100, int(1_000 * options.scale)), 0.02, options, 15 if options.scale == 1 else 2)
    if options.scale == 1:
        yield from _idle(5_000, 0.08, attrs.evolve(options, rounds=1), 30)
    yield from _streaming(options)
    yield from _growing(options)


def _idle(count: int, core: float, options: Options, seconds: float) -> Iterator[Row]:
    found = in_turn(
        min(options.rounds, 3), bare=lambda: idle("bare", count, 0), ours=lambda: idle("tailrace", count, seconds)
    )
    each, floor = (median(found[whose], lambda figure: figure.bytes_each / KIB) for whose in ("ours", "bare"))
    yield Row(job=f"{count} quiet workers: memory of each", unit="KiB", ours=each, at_most=24, more={"bare": floor})
    connects, most = (median(found[whose], lambda figure: figure.connects_s) for whose in ("ours", "bare"))
    more = {"bare": most, "cpu_us": median(found["ours"], lambda figure: figure.connect_cpu_us)}
    yield Row(job=f"{count} workers log in", unit="/s", ours=connects, at_least=1_000, more=more)
    busy = median(found["ours"], lambda figure: figure.core)
    yield Row(job=f"{count} quiet workers: part of a core", unit="", ours=busy, at_most=core)


def _streaming(options: Options) -> Iterator[Row]:
    workers = 100
    figures = [streaming(workers, int(1_500 * MEGABYTE * options.scale)) for _ in range(min(options.rounds, 3))]
    one, many = median(figures, lambda it: it.one_mb_s), median(figures, lambda it: it.many_mb_s)
    yield Row(job=f"{workers} stream at once", unit="MB/s", ours=many, peer="one alone", theirs=one, at_least=0.8)
    one, many = median(figures, lambda it: it.one_cpu), median(figures, lambda it: it.many_cpu)
    yield Row(job=f"{workers} stream at once: master's CPU", unit="s/GB", ours=many, peer="one alone", theirs=one)
    p99 = 1000 * median(figures, lambda it: it.p99_s)
    more = {"p50_ms": 1000 * median(figures, lambda it: it.p50_s)}
    yield Row(job=f"{workers} stream at once: a call, p99", unit="ms", ours=p99, at_most=50, more=more)
    peak = median(figures, lambda it: it.peak_bytes) / KIB / KIB
    yield Row(job=f"{workers} stream at once: master's memory", unit="MiB", ours=peak, at_most=256)
    each = median(figures, lambda it: (it.peak_bytes - it.idle_bytes) / workers) / KIB
    yield Row(job="memory of a streaming command", unit="KiB", ours=each, at_most=1024)


def _growing(options: Options) -> Iterator[Row]:
    counts = [1, 10, 100, 1_000] if options.scale == 1 else [1, 10, 100]
    seconds = 8 if options.scale == 1 else 2
    jobs = {str(count): lambda count=count: fixed_rate(count, seconds) for count in counts}
    found = in_turn(min(options.rounds, 3), **jobs)
    cpu = {int(name): median(figures) for name, figures in found.items()}
    for count in counts[1:]:
        yield Row(
            job=f"{FIXED_BYTES_S // MEGABYTE} MB/s from {count} workers: CPU",
            unit="s/GB",
            ours=cpu[count],
            peer="from one",
            theirs=cpu[1],
            at_most=1.5,
        )


def _percentile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def _python(program: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HERE / program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _line(made: subprocess.Popen[str]) -> str:
    assert made.stdout is not None
    line = made.stdout.readline()
    if not line:
        raise RuntimeError(f"{made.args} ended with {made.wait()}")
    return line
