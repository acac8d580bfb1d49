"""A hundred lines of a log, in a process that does nothing else: `python first_screen.py DIR RUN line|time|tail AT`.

What is timed is opening the store, finding the place, and reading; not the imports, which `process_s` includes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import aclosing
from pathlib import Path

import trio

import process
from tailrace.logs import LogStore, open_store

LINES = 100


async def screen(store: LogStore, run: str, how: str, at: str) -> int:
    """How many lines came."""
    lines = 0
    if how == "time":
        offset = await store.find_time(run, float(at))
        async with aclosing(store.batches(run, from_offset=offset)) as batches:
            async for batch in batches:
                lines += sum(record.lines for record in batch.records())
                if lines >= LINES:
                    break
        return lines
    where = {"tail": LINES} if how == "tail" else {"from_line": int(at)}
    async with aclosing(store.read(run, **where)) as records:
        async for record in records:
            lines += record.lines
            if lines >= LINES:
                break
    return lines


async def main(directory: str, run: str, how: str, at: str) -> None:
    began = time.perf_counter()
    async with open_store(Path(directory)) as store:
        lines = await screen(store, run, how, at)
        seconds = time.perf_counter() - began
    assert lines >= LINES, lines
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    process_s = up_s - ticks / os.sysconf("SC_CLK_TCK")
    print(json.dumps({"seconds": seconds, "process_s": process_s, "peak": process.peak(os.getpid())}))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
