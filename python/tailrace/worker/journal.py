"""The journal of a command that has no child: written by the daemon itself, kept in memory."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, final

import trio

from tailrace._core import Journal
from tailrace.link.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace._core import Value

KEPT_BYTES_MAX = 4 * 1024 * 1024
"""How much a command may be ahead of its master: as much as a supervisor's ring holds."""


@final
class MemoryOutput:
    """Both ends of an in-memory journal: `append`, `update` and `finish` for the command, the rest for who sends it."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._changed = Bell()
        self._kept_max: float = KEPT_BYTES_MAX

    async def append(self, channel: str, data: bytes) -> None:
        """Adds bytes to a channel. Waits while too much waits to be sent; cancelled, nothing was added."""
        await self._room()
        if data:
            wall_us, mono_us = time.time_ns() // 1000, time.monotonic_ns() // 1000
            self.journal.append(channel, data, wall_us, mono_us)
            self._changed.ring()

    async def update(self, values: Mapping[str, Value]) -> None:
        """Adds structured updates. Waits and is cancelled as `append`."""
        await self._room()
        self.journal.update(values)
        self._changed.ring()

    async def finish(self, failure: tuple[str, str] | None = None) -> None:
        """Ends the journal. Never waits for room: the end must always fit."""
        await trio.lowlevel.checkpoint()
        self.journal.finish(failure)
        self._changed.ring()

    async def wait_grown(self, end: int) -> None:
        """Waits until the journal reaches beyond `end`, or has ended."""
        await trio.lowlevel.checkpoint()
        while self.journal.end <= end and not self.journal.ended:
            await self._changed.wait()

    def released(self, offset: int) -> None:
        """The master has everything before `offset` safe: it may be forgotten here."""
        self.journal.release(offset)
        self._changed.ring()

    def spooling(self, on: bool) -> None:
        """Memory is all that there is: who writes waits."""

    def abandon(self) -> None:
        """Nobody will read this journal: forget it and wait for nothing any more."""
        self._kept_max = math.inf
        self._changed.ring()

    async def _room(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.journal.end - self.journal.begin > self._kept_max:
            await self._changed.wait()
