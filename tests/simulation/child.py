"""A child under its supervisor, as the world has it: it outlives the daemon, and knows what it has written."""

from __future__ import annotations

import random

import attrs
import trio

from tailrace._core import Journal
from tailrace.link.resume import CommandKey

# As a supervisor's ring: who writes waits when so much of it is held. Small, as everything here.
RING_BYTES = 48 * 1024


@attrs.define(eq=False)
class Child:
    """One command's process, its supervisor and its journal."""

    key: CommandKey
    rng: random.Random
    pieces: int
    piece_bytes: int
    pause_s: float
    journal: Journal = attrs.field(factory=Journal)
    truth: bytearray = attrs.field(factory=bytearray)
    """All records that were ever written, as they stand in the journal."""
    acknowledged: int = 0
    """Up to where a master has said that it has it safe."""
    interrupted: trio.Event = attrs.field(factory=trio.Event)
    delivered: bool = False
    """The master has its end safe: the worker has forgotten it."""
    forgotten: bool = False
    """The master did not want it."""
    spooling: bool | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Write, wait, and end; sooner when interrupted."""
        for _ in range(self.pieces):
            await self._wait_room()
            if self.interrupted.is_set():
                break
            self._write()
            if self.pause_s:
                with trio.move_on_after(self.rng.random() * self.pause_s):
                    await self.interrupted.wait()
        stopped = self.interrupted.is_set()
        self.journal.update({"rc": -1, "failure_reason": "interrupted"} if stopped else {"rc": 0})
        self.journal.finish(None)
        self._grown()

    async def wait_grown(self, end: int) -> None:
        while self.journal.end <= end and not self.journal.ended:
            await self._changed.wait()

    def release(self, offset: int) -> None:
        self.journal.release(offset)
        self._change()

    def interrupt(self) -> None:
        self.interrupted.set()
        self._change()

    async def _wait_room(self) -> None:
        while self.journal.end - self.journal.begin > RING_BYTES and not self.forgotten:
            await self._changed.wait()

    def _write(self) -> None:
        rng = self.rng
        size = rng.randint(1, self.piece_bytes)
        # Half of what is written can be compressed.
        noise = rng.randbytes(size if rng.random() < 0.5 else size // 4)
        data = (noise * 4)[:size].replace(b"\n", b"") + b"\n" * rng.randint(0, 1)
        if data:
            now_us = int(trio.current_time() * 1e6)
            self.journal.append(rng.choice(("stdout", "stdout", "stderr")), data, 10**15 + now_us, now_us, None)
        self._grown()

    def _grown(self) -> None:
        while (batch := self.journal.batch(len(self.truth), 1 << 20)) is not None:
            self.truth += batch.raw
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Source:
    """A daemon's view of a child: what `RemoteCommandProxy.send` takes. It ends with the daemon."""

    def __init__(self, child: Child, acknowledged, is_alive) -> None:
        self._child = child
        self._acknowledged = acknowledged
        self._is_alive = is_alive

    @property
    def journal(self) -> Journal:
        return self._child.journal

    async def wait_grown(self, end: int) -> None:
        await self._child.wait_grown(end)

    def released(self, offset: int) -> None:
        if self._is_alive():
            self._acknowledged(self._child, offset)
            self._child.release(offset)

    def spooling(self, on: bool) -> None:
        if self._is_alive():
            self._child.spooling = on
