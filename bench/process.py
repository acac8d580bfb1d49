"""What a process costs, as the kernel counts it."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Bytes of memory now, shared pages in proportion (PSS)."""
    return _kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss:")


def peak(pid: int) -> int:
    """Bytes of memory that were resident at most, shared pages included."""
    return _kib(Path(f"/proc/{pid}/status").read_text(), "VmHWM:")


def forget_peak(pid: int) -> None:
    """From now on `peak` counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system."""
    # Behind the name, which may have anything in it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _kib(text: str, name: str) -> int:
    line = next(line for line in text.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
