"""One run's log, while it grows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol, Unpack, final

import attrs
import trio

from tailrace.logs.info import with_totals

if TYPE_CHECKING:
    from tailrace._core import Batch, LogReader, LogWriter
    from tailrace.logs.info import RunEnd, RunInfo

_THREAD_BYTES: Final = 1 << 20
"""Batches from here on are written in a thread: below it, the thread costs more than the copy."""


class Keeper(Protocol):
    """What a writer asks of its store."""

    async def ended(self, log: LogWriter, info: RunInfo) -> None:
        """Close the log, and write the result down."""


@final
class RunWriter:
    """Appends a run's journal to its log, batch by batch. Made by `LogStore.create`."""

    def __init__(self, info: RunInfo, log: LogWriter, keeper: Keeper, io: trio.CapacityLimiter) -> None:
        self._info = info
        self._log = log
        self._keeper = keeper
        self._io = io
        self._grown = trio.Event()
        self._finished = False

    @property
    def info(self) -> RunInfo:
        """The run as it stands now."""
        return self._info

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        return self._log.end

    @property
    def chain(self) -> bytes:
        """The chain over everything."""
        return self._log.chain

    @property
    def finished(self) -> bool:
        """Whether nothing follows."""
        return self._finished

    async def append(self, batch: Batch, chain: bytes | None = None) -> None:
        """Append a batch that begins at `end`, and wake who follows. `chain`: the chain after it, if it is known.

        When it returns the bytes are in the file: they outlive this process, however it ends. For the machine's death
        there is `sync`. Cancelled: nothing was appended.

        Raises:
            StoreError: it does not begin at `end`, or it cannot be written (a full disk). Nothing was appended, and the
                same may be tried again.
        """
        if batch.end - batch.start < _THREAD_BYTES:
            await trio.lowlevel.checkpoint()
            self.append_nowait(batch, chain)
        else:
            await trio.to_thread.run_sync(self._log.append, batch, chain, limiter=self._io)
            self._wake()

    def append_nowait(self, batch: Batch, chain: bytes | None = None) -> None:
        """The same, here and now."""
        self._log.append(batch, chain)
        self._wake()

    async def sync(self) -> None:
        """Return when everything that was appended before is safe on the disk. Cancelled: it is written all the same.

        Raises:
            StoreError: the disk does not do it.
        """
        await trio.to_thread.run_sync(self._log.sync, limiter=self._io)

    async def finish(self, **end: Unpack[RunEnd]) -> RunInfo:
        """Write the result down: the run has ended, with what `end` says, and followers come to their end.

        The log is compressed later, by the store. Cancelled before it began: the run goes on; else it is carried out.

        Raises:
            StoreError: it cannot be written down. For this process the run has ended all the same; when the store is
                opened next, it is a lost one.
        """
        await trio.lowlevel.checkpoint()
        if self._finished:
            return self._info
        counted = with_totals(self._info, self._log.totals())
        self._info = attrs.evolve(attrs.evolve(counted, state="complete", ended=time.time()), **end)
        with trio.CancelScope(shield=True):
            try:
                await self._keeper.ended(self._log, self._info)
            finally:
                self._finished = True
                self._wake()
        return self._info

    def reader(self) -> LogReader:
        """A reader that sees every append at once."""
        return self._log.reader()

    async def wait_grown(self, offset: int) -> bool:
        """Wait until there is something behind `offset`. False: there never will be."""
        await trio.lowlevel.checkpoint()
        while self._log.end <= offset:
            if self._finished:
                return False
            await self._grown.wait()
        return True

    @property
    def followers(self) -> int:
        """How many wait for more."""
        return self._grown.statistics().tasks_waiting

    def _wake(self) -> None:
        # Most logs have no reader most of the time, and an event can be set only once.
        if self.followers or self._finished:
            self._grown.set()
            self._grown = trio.Event()
