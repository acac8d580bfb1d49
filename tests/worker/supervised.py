"""A reader of supervised journals for the tests, as `link` is one, and what makes a child out of a script."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from tailrace._core import Ledger
from tailrace.worker.supervisor import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tailrace._core import Batch, Receipt
    from tailrace.worker.supervisor import Supervised

BATCH_BYTES = 1 << 20
TIMEOUT_S = 30


class Reader:
    """Takes everything from a journal, keeps the bytes of each channel, and counts for itself."""

    def __init__(self, supervised: Supervised, *, digest=None) -> None:
        self.supervised = supervised
        self.channels: dict[str, bytearray] = {}
        self.order: list[str] = []
        self.updates: dict[str, object] = {}
        self.update_keys: list[str] = []
        self.gaps: list[tuple[str, int, int, str]] = []
        self.records = 0
        self.receipt: Receipt | None = None
        self.failure: tuple[str, str] | None = None
        self.ledger = Ledger()
        self.digest = digest
        self.at = 0
        self.running = trio.Event()
        self.running.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        journal = self.supervised.journal
        while not (journal.ended and self.at == journal.end):
            await self.running.wait()
            batch = journal.batch(self.at, BATCH_BYTES)
            if batch is None:
                await self.supervised.wait_grown(self.at)
                continue
            self.take(batch)
            self.at = batch.end
            self.supervised.released(self.at)
            self._changed.set()
            self._changed = trio.Event()

    def take(self, batch: Batch) -> None:
        self.ledger.add(batch)
        self.records += len(batch)
        for record in batch.records():
            channel = f"log:{record.name}" if record.name else record.channel
            self.order.append(channel)
            if channel == "stdout" and self.digest is not None:
                self.digest.update(record)
            else:
                self.channels.setdefault(channel, bytearray()).extend(record.data)
        self.gaps += [(gap.channel, gap.bytes, gap.lines, gap.reason) for gap in batch.gaps()]
        updates = batch.updates()
        self.updates.update(updates)
        self.update_keys += list(updates)
        self.receipt = batch.receipt() or self.receipt
        self.failure = batch.failure() or self.failure

    async def wait_for(self, channel: str, text: bytes) -> None:
        while text not in self.channels.get(channel, b""):
            await self._changed.wait()

    def text(self, channel: str) -> str:
        return self.channels.get(channel, b"").decode()

    def agrees(self) -> bool:
        return self.receipt is not None and self.ledger.agrees(self.receipt)


@asynccontextmanager
async def reading(supervised: Supervised, *, digest=None) -> AsyncIterator[Reader]:
    """A reader that runs meanwhile; inside of it, `supervised` must be brought to its end."""
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            reader = Reader(supervised, digest=digest)
            nursery.start_soon(reader.run)
            yield reader


def shell(script: str, tmp_path: Path, **options) -> Child:
    return child(["/bin/sh", "-c", script], tmp_path, **options)


def python(script: str, tmp_path: Path, **options) -> Child:
    return child([sys.executable, "-I", "-S", "-c", script], tmp_path, **options)


def child(argv: list[str], tmp_path: Path, **options) -> Child:
    options.setdefault("final", True)
    options.setdefault("cwd", str(tmp_path))
    options.setdefault("env", dict(os.environ))
    return Child(argv=list(argv), **options)


def descendants(pid: int) -> set[int]:
    """All processes below `pid`."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    parents[int(entry)] = int(stat.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def ticks(pid: int) -> int:
    """The time that a process has had of a processor, in hundredths of a second."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        user, system = stat.read().rpartition(b")")[2].split()[11:13]
    return int(user) + int(system)
