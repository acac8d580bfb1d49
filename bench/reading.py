"""Reading large logs: the first screen of one, and a thousand followers of another.

A first screen is looked for by a process that has read nothing yet, in files that are not in memory
(`first_screen.py`). Followers share a process and its event loop with who writes (`followers.py`), as in a master.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import trio

from row import Options, Row, in_turn, median
from tailrace._core import Journal, LogWriter
from tailrace.logs import RunInfo, new_id, open_store

HERE = Path(__file__).parent
KIB = 1024
LINE_BYTES = 80
RECORD_BYTES = 64_000
RECORDS_S = 10
EPOCH_S = 1_700_000_000
SCREENS = ("line", "time", "tail")


def run_info() -> RunInfo:
    return RunInfo(id=new_id(), worker="w", builder=None, command="shell", title="make", started=EPOCH_S)


async def write_log(directory: Path, total_bytes: int) -> str:
    """A finished log of so many bytes, in lines of 80 and records of 64 kB, ten a second. The run's id."""
    # Half random, so that it is compressed as much as logs are.
    lines = [
        os.urandom(20).hex().encode() + b"." * (LINE_BYTES - 41) + b"\n" for _ in range(RECORD_BYTES // LINE_BYTES)
    ]
    data = b"".join(lines)
    info = run_info()
    async with open_store(directory, durability="relaxed") as store:
        writer = await store.create(info)
        journal = Journal()

        async def flush() -> None:
            while (batch := journal.batch(writer.end, 1 << 20)) is not None:
                await writer.append(batch)
            journal.release(writer.end)

        for record in range(total_bytes // RECORD_BYTES):
            at_us = EPOCH_S * 1_000_000 + record * (1_000_000 // RECORDS_S)
            journal.append("stdout", data, at_us, at_us)
            if record % 16 == 15:
                await flush()
        journal.update({"rc": 0})
        journal.finish()
        await flush()
        await writer.finish(rc=0)
    return info.id


def seal(directory: Path, run: str) -> None:
    """Compress it, as the store does in the background."""
    while LogWriter.seal_next(str(directory / "runs" / run)):
        pass


def forget(directory: Path) -> None:
    """Have nothing of it in memory."""
    os.sync()
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def first_screen(directory: Path, run: str, how: str, lines: int) -> dict[str, float]:
    """Seconds until a hundred lines are there, and what memory that took."""
    forget(directory)
    where = {
        "line": str(lines // 3),
        "time": str(EPOCH_S + lines * LINE_BYTES / RECORD_BYTES / RECORDS_S / 3),
        "tail": "",
    }
    said = subprocess.run(
        [sys.executable, HERE / "first_screen.py", directory, run, how, where[how]], stdout=subprocess.PIPE, check=True
    )
    return dict(json.loads(said.stdout))


def follow(followers: int, seconds: float) -> dict[str, float]:
    said = subprocess.run(
        [sys.executable, HERE / "followers.py", str(followers), str(seconds)], stdout=subprocess.PIPE, check=True
    )
    return dict(json.loads(said.stdout))


def rows(options: Options) -> Iterator[Row]:
    """First screens, then followers."""
    with tempfile.TemporaryDirectory(dir=HERE.parent / "target") as home:
        yield from _screens(Path(home), int(10e9 * options.scale), options.rounds)
    yield from _followers(1_000, 10 * options.scale + 2, min(options.rounds, 3))


def _screens(home: Path, total_bytes: int, rounds: int) -> Iterator[Row]:
    run = trio.run(write_log, home, total_bytes)
    size = f"{total_bytes / 1e9:g} GB"
    lines = total_bytes // RECORD_BYTES * (RECORD_BYTES // LINE_BYTES)
    for state in ("log", "compressed log"):
        if state != "log":
            seal(home, run)
        jobs = {how: lambda how=how: first_screen(home, run, how, lines) for how in SCREENS}
        found = in_turn(rounds, **jobs)
        for how in SCREENS:
            job = f"first screen of a {size} {state}: {how}"
            took = 1000 * median(found[how], lambda figure: figure["seconds"])
            more = {"whole_process_ms": 1000 * median(found[how], lambda figure: figure["process_s"])}
            yield Row(job=job, unit="ms", ours=took, at_most=100, more=more)
        peak = max(figure["peak"] for how in SCREENS for figure in found[how]) / KIB / KIB
        yield Row(job=f"first screen of a {size} {state}: memory", unit="MiB", ours=peak, at_most=50)


def _followers(followers: int, seconds: float, rounds: int) -> Iterator[Row]:
    found = in_turn(rounds, alone=lambda: follow(0, seconds), followed=lambda: follow(followers, seconds))
    speed, alone = (median(found[whose], lambda figure: figure["mb_s"]) for whose in ("followed", "alone"))
    more = {name: median(found["followed"], lambda figure, name=name: figure[name]) for name in found["followed"][0]}
    yield Row(
        job=f"5 MB/s into a log with {followers} followers",
        unit="MB/s",
        ours=speed,
        peer="without followers",
        theirs=alone,
        at_least=0.98,
        more=more,
    )
    late = 1000 * more["late_p99_s"]
    yield Row(job="the same: how late a batch is stored, p99", unit="ms", ours=late, at_most=50)
    yield Row(job="the same: memory of a follower", unit="KiB", ours=more["follower_bytes"] / KIB, at_most=64)
