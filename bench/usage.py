"""The CPU time of processes, from outside."""

from __future__ import annotations

import os
from pathlib import Path

import trio

TICKS_S = os.sysconf("SC_CLK_TCK")


QUIET_S = 10.0


async def quiet(worker: int) -> None:
    """Wait until the worker of that process has no supervisor any more: one that is not told that all is safe stays for
    its next daemon."""
    with trio.move_on_after(QUIET_S):
        while len(_times(worker)) > 2:  # noqa: ASYNC110 - the daemon and its helper; nobody tells when a process goes
            await trio.sleep(0.01)


def cpu_s(root: int) -> float:
    """Seconds of CPU that the process `root` and all that descend from it have used, those that are dead left out."""
    return sum(_times(root))


def _times(root: int) -> list[float]:
    times: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        times[pid] = (int(fields[11]) + int(fields[12])) / TICKS_S
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found += [times[pid]] if pid in times else []
        waiting += children.get(pid, [])
    return found
