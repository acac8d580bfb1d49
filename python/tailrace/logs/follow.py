"""Reading a run's log. A reader is an offset: nothing is queued for it, however slow it is."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, final

from trio.to_thread import run_sync as to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import trio

    from tailrace._core import Batch, LogReader, Record
    from tailrace.logs.writer import RunWriter

_BATCH_BYTES: Final = 256 << 10
"""What a reader has in hand at once. Larger is hardly faster."""

_CACHED_BYTES: Final = 1 << 20
"""What was written just now is in memory still: so near the end, reading takes no longer than starting a thread."""


FOLLOWERS_AT_ONCE: Final = 16
"""Readers of growing logs that go on in one round of trio's loop. A thousand would make the round a tenth of a second
long, and who writes the log waited for it."""


@final
class Reading:
    """One reader's place in a log, which may still grow."""

    def __init__(
        self, reader: LogReader, writer: RunWriter | None, io: trio.CapacityLimiter, turns: trio.Semaphore
    ) -> None:
        """`writer`: who appends to it, if it is still written to. `turns`: `FOLLOWERS_AT_ONCE`, of all readings."""
        self._reader = reader
        self._writer = writer
        self._io = io
        self._turns = turns

    async def batches(self, offset: int, *, follow: bool) -> AsyncGenerator[Batch]:
        """What is stored from `offset` on; with `follow` also what will be, until the run has ended."""
        while True:
            while (batch := await self._batch(offset)) is not None:
                offset = batch.end
                yield batch
                # Who waits holds nothing: there may be a thousand, each at another place.
                del batch
            if not follow or self._writer is None or not await self._writer.wait_grown(offset):
                return

    async def records(
        self, *, from_line: int, tail: int | None, channel: str | None, follow: bool
    ) -> AsyncGenerator[Record]:
        """The log records of `channel`, or of all, from that line on; the first is cut there."""
        found = await self._place(from_line, tail, channel, follow=follow)
        if found is None:
            return
        offset, cut = found
        record: Record | None
        async with aclosing(self.batches(offset, follow=follow)) as batches:
            async for batch in batches:
                for record in batch.records():
                    if not _is_of(record, channel):
                        continue
                    yield record.cut(cut) if cut is not None and record.offset == offset else record
                record = None
                del batch

    async def place(
        self, *, from_line: int, tail: int | None, channel: str | None, wait: bool
    ) -> tuple[int, int | None]:
        """Where that line begins: the offset of its record, and at which of its line starts to cut it, if anywhere.

        A line that has not begun is waited for, if that is asked for; else it is where the log ends now.
        """
        found = await self._place(from_line, tail, channel, follow=wait)
        return found or (self._reader.end, None)

    async def _place(
        self, from_line: int, tail: int | None, channel: str | None, *, follow: bool
    ) -> tuple[int, int | None] | None:
        end, lines = self._reader.end, self._reader.lines(channel)
        if tail is not None:
            if tail <= 0:
                return end, None
            from_line = max(from_line, lines - tail + 1)
        if from_line <= 1:
            return 0, None
        while (found := await to_thread(self._reader.find_line, from_line, channel, limiter=self._io)) is None:
            # The line has not begun. Where it will is behind the present end.
            if not follow or self._writer is None or not await self._writer.wait_grown(self._reader.end):
                return None
        return found

    async def _batch(self, offset: int) -> Batch | None:
        if self._writer is not None and not self._writer.finished:
            async with self._turns:
                if self._reader.end - offset <= _CACHED_BYTES:
                    return self._reader.batch(offset, _BATCH_BYTES)
                if (batch := self._reader.at_hand(offset, _BATCH_BYTES)) is not None:
                    return batch
        return await to_thread(self._reader.batch, offset, _BATCH_BYTES, limiter=self._io)


def _is_of(record: Record, channel: str | None) -> bool:
    if channel is None:
        return True
    return channel == (record.channel if record.name is None else f"log:{record.name}")
