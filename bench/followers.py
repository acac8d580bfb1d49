"""A log that grows by 5 MB/s, and who follows it, in one process: `python followers.py FOLLOWERS SECONDS`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import trio

import process
from reading import LINE_BYTES, run_info
from tailrace._core import Journal
from tailrace.logs import LogStore, open_store
from tailrace.logs.writer import RunWriter

BYTES_S = 5_000_000
# What a worker's coalescer lets pass at once.
EVERY_S = 0.02


async def ingest(writer: RunWriter, journal: Journal, seconds: float) -> tuple[int, list[float]]:
    """Bytes that were stored, and how late each batch was."""
    data = (b"x" * (LINE_BYTES - 1) + b"\n") * int(BYTES_S * EVERY_S / LINE_BYTES)
    late: list[float] = []
    begun = trio.current_time()
    for number in range(int(seconds / EVERY_S)):
        await trio.sleep_until(begun + number * EVERY_S)
        now_us = time.time_ns() // 1000
        journal.append("stdout", data, now_us, now_us)
        batch = journal.batch(writer.end, 1 << 20)
        assert batch is not None
        await writer.put(batch)
        journal.release(writer.end)
        late.append(trio.current_time() - begun - number * EVERY_S)
    return len(data) * len(late), late


async def follow(store: LogStore, run: str, read: list[int], number: int) -> None:
    async for record in store.follow(run):
        read[number] += len(record)


async def main(followers: int, seconds: float) -> None:
    read = [0] * followers
    with tempfile.TemporaryDirectory() as home:
        async with open_store(Path(home)) as store, trio.open_nursery() as nursery:
            writer, journal = await store.create(run_info()), Journal()
            await ingest(writer, journal, 0.5)
            process.forget_peak(os.getpid())
            before = process.peak(os.getpid())
            for number in range(followers):
                nursery.start_soon(follow, store, writer.info.id, read, number)
            await ingest(writer, journal, 1)
            before_read = sum(read)
            began, cpu = time.perf_counter(), time.process_time()
            stored, late = await ingest(writer, journal, seconds)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            peak = process.peak(os.getpid())
            nursery.cancel_scope.cancel()
    late.sort()
    said = {
        "mb_s": stored / took / 1e6,
        "late_p50_s": late[len(late) // 2],
        "late_p99_s": late[int(len(late) * 0.99)],
        "late_max_s": late[-1],
        "core": cpu / took,
        "follower_bytes": (peak - before) / max(1, followers),
        "followed_mb_s": (sum(read) - before_read) / took / 1e6,
        "behind_mb": (writer.end - min(read, default=writer.end)) / 1e6,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]))
