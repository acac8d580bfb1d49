"""The CPU time of processes, from outside."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")


def cpu_s(root: int) -> float:
    """Seconds of CPU that the process `root` and all that descend from it have used, those that are dead left out."""
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
    found, waiting = 0.0, [root]
    while waiting:
        pid = waiting.pop()
        found += times.get(pid, 0.0)
        waiting += children.get(pid, [])
    return found
