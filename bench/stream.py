"""A log's way from the child to an Impl that counts, beside the bare pipeline that can do nothing else, and OpenSSH.

Last, one through a long thin line, where it goes compressed: beside the line itself, and `ssh -C`.

The bare pipeline: child → pipe → trio → loopback TCP → trio, reads of 256 KiB, counting newlines. OpenSSH: `ssh HOST
child` over a connection that stands already; what comes out of it is counted likewise.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs
import trio

import tailrace
from farm import Counter, child, connected, start_worker
from line import LINE, LINE_BYTES_S, ROUNDS_MAX, behind_a_line, thin_line, write_log
from openssh import Openssh, openssh
from row import Options, Row, in_turn, median, medians
from usage import cpu_s, quiet

MEGABYTE = 1_000_000
RELAY = Path(__file__).with_name("relay.py")
READ_BYTES = 262_144
LINE_LOG_BYTES = 200_000_000


@attrs.frozen
class Figure:
    """One run: bytes a second, and the CPU seconds for each gigabyte: of the receiving process, and of the sending ones
    as far as they are known. What the child itself uses is not in them."""

    megabytes_s: float
    cpu_s_per_gb: float
    sender_cpu_s_per_gb: float | None = None

    @classmethod
    def of(cls, size: int, took: float, cpu: float, sender_cpu: float | None = None) -> Figure:
        gigabytes = size / 1e9
        sender = None if sender_cpu is None else sender_cpu / gigabytes
        return cls(size / took / MEGABYTE, cpu / gigabytes, sender)

    @property
    def busy(self) -> float:
        """How much of one core the receiving process used: near 1, it is the limit."""
        return self.cpu_s_per_gb * self.megabytes_s * MEGABYTE / 1e9


@attrs.define
class Timed(Counter):
    """Reads what the worker's processes have used as soon as the result is there: its supervisor is gone after that."""

    worker: int = 0
    worker_cpu: float = 0.0

    async def remote_update(self, updates: tailrace.Updates) -> None:
        await super().remote_update(updates)
        if "rc" in updates and self.worker:
            self.worker_cpu = cpu_s(self.worker)


async def ours(
    mode: str,
    lines: int,
    wire: str = "tailrace",
    start: Callable[[str, str], subprocess.Popen[bytes]] = start_worker,
) -> Figure:
    async with connected(wire, start) as (conn, worker):
        counter = Timed(worker=worker.pid if start is start_worker else 0)
        before = cpu_s(worker.pid)
        began, cpu = time.perf_counter(), time.process_time()
        await conn.remoteStartCommand(
            counter, "bench", "1", "shell", {"command": [child(), mode, str(lines)], "workdir": "."}
        )
        await counter.done.wait()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        if counter.worker:
            await quiet(worker.pid)
        assert (counter.rc, counter.bytes, counter.lines) == (0, lines * 80, lines), counter
        return Figure.of(counter.bytes, took, cpu, counter.worker_cpu - before if counter.worker else None)


async def bare(mode: str, lines: int) -> Figure:
    """The limit: the same bytes through two trio processes with nothing in between."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, str(RELAY), str(port), child(), mode, str(lines)], stdout=subprocess.PIPE
    ) as relay:
        assert relay.stdout is not None
        async with listener, await listener.accept() as stream:
            began, cpu = time.perf_counter(), time.process_time()
            received = newlines = 0
            while data := await stream.receive_some(READ_BYTES):
                received += len(data)
                newlines += data.count(b"\n")
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
        relay_cpu = float(await trio.to_thread.run_sync(relay.stdout.read))
    assert (received, newlines) == (lines * 80, lines)
    return Figure.of(received, took, cpu, relay_cpu)


def over_ssh(ssh: Openssh, mode: str, lines: int) -> Figure:
    """The same bytes from `ssh` itself. The receiver's CPU is the counting process's and the client's."""
    began, cpu = time.perf_counter(), time.process_time()
    received = newlines = 0
    with subprocess.Popen(ssh.ssh(child(), mode, str(lines)), stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdout is not None
        fcntl.fcntl(client.stdout.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
        while data := client.stdout.read(READ_BYTES):
            received += len(data)
            newlines += data.count(b"\n")
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert (client.returncode, received, newlines) == (0, lines * 80, lines)
    return Figure.of(received, took, cpu)


async def through_a_line(log: Path) -> float:
    """How long a log takes to the far end, from the call to the completion."""
    with behind_a_line() as start:
        async with connected(start=start) as (conn, _):
            counter = Counter()
            began = time.perf_counter()
            await conn.remoteStartCommand(
                counter, "bench", "1", "shell", {"command": ["cat", str(log)], "workdir": ".", "logEnviron": False}
            )
            await counter.done.wait()
            took = time.perf_counter() - began
    assert (counter.rc, counter.bytes) == (0, log.stat().st_size), counter
    return took


def ssh_through_a_line(ssh: Openssh, log: Path) -> float:
    """The same by `ssh -C`, over a connection that stands already."""
    with thin_line(ssh.address) as line, ssh.through(line.address) as there:
        assert there is not None
        began = time.perf_counter()
        done = subprocess.run(there.ssh("cat", str(log)), stdout=subprocess.PIPE, check=True)
        took = time.perf_counter() - began
    assert len(done.stdout) == log.stat().st_size
    return took


def rows(options: Options) -> Iterator[Row]:
    """The figures of one log."""
    with openssh() as ssh:
        yield from _beside(
            "blocks of 80-byte lines", "block", int(12_500_000 * options.scale), options.rounds, 0.8, ssh
        )
        yield from _line(options, ssh)
    yield from _beside("one write a line", "line", int(2_500_000 * options.scale), options.rounds, 0.85)
    yield from _beside("one byte a write", "byte", int(12_500 * options.scale), options.rounds, 0.8)


def _line(options: Options, ssh: Openssh | None) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-line-") as home:
        log = Path(home) / "log"
        write_log(log, int(LINE_LOG_BYTES * options.scale))
        jobs = {"ours": partial(trio.run, through_a_line, log)}
        if ssh is not None:
            jobs["ssh"] = partial(ssh_through_a_line, ssh, log)
        found = in_turn(min(options.rounds, ROUNDS_MAX), **jobs)
        speed = {whose: log.stat().st_size / median(took) / MEGABYTE for whose, took in found.items()}
    job = f"a compiler's log through {LINE}"
    yield Row(job=job, unit="MB/s", ours=speed["ours"], peer="the line", theirs=LINE_BYTES_S / MEGABYTE)
    if "ssh" in speed:
        yield Row(job=job, unit="MB/s", ours=speed["ours"], peer="ssh -C", theirs=speed["ssh"])


def _beside(job: str, mode: str, lines: int, rounds: int, at_least: float, ssh: Openssh | None = None) -> Iterator[Row]:
    jobs = {"bare": partial(trio.run, bare, mode, lines), "ours": partial(trio.run, ours, mode, lines)}
    if ssh is not None:
        jobs["ssh"] = partial(over_ssh, ssh, mode, lines)
    found = in_turn(rounds, **jobs)
    speed = medians(found, lambda figure: figure.megabytes_s)
    cpu = medians(found, lambda figure: figure.cpu_s_per_gb)
    yield Row(job=job, unit="MB/s", ours=speed["ours"], peer="bare pipeline", theirs=speed["bare"], at_least=at_least)
    if "ssh" in speed:
        yield Row(job=job, unit="MB/s", ours=speed["ours"], peer="OpenSSH", theirs=speed["ssh"], at_least=1.5)
    yield Row(
        job=f"{job}: master's CPU", unit="s/GB", ours=cpu["ours"], peer="bare pipeline", theirs=cpu["bare"], at_most=1.3
    )
    sender = {
        whose: median([figure.sender_cpu_s_per_gb or 0.0 for figure in found[whose]]) for whose in ("ours", "bare")
    }
    yield Row(
        job=f"{job}: worker's CPU",
        unit="s/GB",
        ours=sender["ours"],
        peer="bare pipeline",
        theirs=sender["bare"],
        at_most=1.5,
    )
