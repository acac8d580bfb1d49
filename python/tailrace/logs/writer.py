"""One run's log, while it grows."""

from __future__ import annotations

import logging
import math
import time
from errno import EIO
from typing import TYPE_CHECKING, Final, Protocol, Unpack, final

import attrs
import trio

from tailrace.errors import StoreError
from tailrace.logs import directory as files
from tailrace.logs.info import with_totals
from tailrace.logs.room import RETRY_S, is_disks, is_full

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tailrace._core import Batch, LogReader, LogWriter
    from tailrace.logs.commit import Durability
    from tailrace.logs.info import RunEnd, RunInfo
    from tailrace.logs.room import Room

logger = logging.getLogger("tailrace.logs")

_THREAD_BYTES: Final = 1 << 20
"""Batches from here on are written in a thread: below it, the thread costs more than the copy."""


class Keeper(Protocol):
    """What a writer asks of its store."""

    @property
    def durability(self) -> Durability:
        """When something counts as safe."""

    def grew(self, writer: RunWriter, size: int) -> None:
        """So many bytes were appended, or there is something else to be made safe: call `committed` when it is."""

    @property
    def room(self) -> Room:
        """Whether there is any for logs."""

    async def ended(self, writer: RunWriter, log: LogWriter) -> None:
        """Close the log, and write the result down; then call `written_down`."""


@final
class RunWriter:
    """Appends a run's journal to its log, batch by batch. Made by `LogStore.create`."""

    def __init__(self, info: RunInfo, log: LogWriter, path: Path, keeper: Keeper, io: trio.CapacityLimiter) -> None:
        self._info = info
        self._log = log
        self._path = path
        self._keeper = keeper
        self._io = io
        self._grown = trio.Event()
        self._finished = False
        self._durable = 0
        self._on_durable: Callable[[int], None] | None = None
        self._safer = trio.Event()
        self._broken: StoreError | None = None
        self._left_out: list[tuple[int, int, str]] = []
        self._why = ""
        self._again_at = -math.inf
        self._patience_ends = math.inf
        self._waiting = trio.CancelScope()
        # What is yet to be synced beside the log, by the thread that commits.
        self._is_new = True
        self._has_result = False

    @property
    def info(self) -> RunInfo:
        """The run as it stands now."""
        return self._info

    @property
    def end(self) -> int:
        """The offset at which the next record begins."""
        return self._log.end

    @property
    def chain(self) -> bytes:
        """The chain over everything."""
        return self._log.chain

    @property
    def durable(self) -> int:
        """The offset up to which it is safe, as far as `durability` goes."""
        return self._durable

    @property
    def durability(self) -> Durability:
        """What safe means in this store."""
        return self._keeper.durability

    def on_durable(self, callback: Callable[[int], None]) -> None:
        """Have `callback` told up to which offset the log is safe, from now on whenever more is. It must not raise.

        It is called in trio's thread, within `append` where that is enough (`relaxed`), also after the run has
        finished. A log that cannot be made safe stops telling: then the next `append` raises.
        """
        self._on_durable = callback
        if self._durable:
            callback(self._durable)

    @property
    def finished(self) -> bool:
        """Whether nothing follows."""
        return self._finished

    async def append(self, batch: Batch, chain: bytes | None = None) -> None:
        """Append a batch that begins at `end`, and wake who follows. `chain`: the chain after it, if it is known.

        When it returns the bytes are in the file: they outlive this process, however it ends. For the machine's death
        there is `on_durable`. Cancelled: nothing was appended.

        Raises:
            StoreError: it does not begin at `end`, or it cannot be written (a full disk). Nothing was appended, and the
                same may be tried again. Or what was appended before could not be synced: then nothing can be appended
                any more, and what stands in the log stays readable.
        """
        if batch.end - batch.start < _THREAD_BYTES:
            await trio.lowlevel.checkpoint()
            self.append_nowait(batch, chain)
        else:
            self._check()
            await trio.to_thread.run_sync(self._log.append, batch, chain, limiter=self._io)
            self._appended(batch)

    async def put(self, batch: Batch) -> None:
        """Append a batch that begins at `end`, whatever the disk does: a run neither fails nor hangs by its log.

        While the disk is full it waits for room, or leaves the batch out, as `WhenFull` of the store says; the waiting
        ends when there is room, or when `hurry` says so. A disk that fails otherwise, or to sync, is not tried again:
        this batch and all others are left out. `left_out` says what was, and the worker is told that it may forget it.
        Cancelled while it waits: nothing was appended.

        Raises:
            StoreError: it does not begin at `end`, or is not well-formed.
        """
        while trio.current_time() >= self._again_at:
            try:
                await self.append(batch)
            except StoreError as error:
                if not is_disks(error):
                    raise
                self._again_at = trio.current_time() + RETRY_S if is_full(error) else math.inf
                if not await self._wait_for_room(error):
                    self._why = str(error)
                    break
            else:
                self._keeper.room.some()
                return
        await trio.lowlevel.checkpoint()
        self._leave_out(batch)

    def hurry(self, within_s: float) -> None:
        """Wait no longer than that for room, from now on: what does not fit then is left out."""
        self._patience_ends = self._waiting.deadline = min(self._patience_ends, trio.current_time() + within_s)

    @property
    def left_out(self) -> list[tuple[int, int, str]]:
        """What `put` left out: from, to, and why."""
        return list(self._left_out)

    @property
    def unsafe_from(self) -> int | None:
        """What follows may not outlive the machine: the disk did not do it."""
        return None if self._broken is None else self._durable

    def append_nowait(self, batch: Batch, chain: bytes | None = None) -> None:
        """The same, here and now."""
        self._check()
        self._log.append(batch, chain)
        self._appended(batch)

    def jump(self, offset: int, chain: bytes, reason: str) -> None:
        """Go on at a later offset, where the chain is `chain`: what is between is missing, and `reason` says why. Or at
        the same offset with another chain: what stands before it is not what was sent. `verify` tells it.

        Raises:
            StoreError: the log is beyond that offset.
        """
        self._log.jump(offset, chain, reason)

    async def sync(self) -> None:
        """Return when everything that was appended before is safe on the disk. Cancelled: it is written all the same.

        Raises:
            StoreError: the disk does not do it.
        """
        await trio.lowlevel.checkpoint()
        end = self.end
        self._keeper.grew(self, 0)
        while self._durable < end:
            self._check()
            await self._safer.wait()

    async def finish(self, **end: Unpack[RunEnd]) -> RunInfo:
        """Write the result down: the run has ended, with what `end` says, and followers come to their end.

        The log is compressed later, by the store. Cancelled before it began: the run goes on; else it is carried out.

        If it cannot be written down it is logged, and the store tries again, as long as it is open; for who asks this
        process the run has ended. The next process finds it in the log.
        """
        await trio.lowlevel.checkpoint()
        if self._finished:
            return self._info
        counted = with_totals(self._info, self._log.totals())
        self._info = attrs.evolve(attrs.evolve(counted, state="complete", suspended=False, ended=time.time()), **end)
        with trio.CancelScope(shield=True):
            try:
                await self._keeper.ended(self, self._log)
            finally:
                self._finished = True
                self._keeper.grew(self, 0)
                self._let_go()
                self._wake()
        return self._info

    def reader(self) -> LogReader:
        """A reader that sees every append at once."""
        return self._log.reader()

    async def wait_grown(self, offset: int) -> bool:
        """Wait until there is something behind `offset`. False: there never will be."""
        await trio.lowlevel.checkpoint()
        while self._log.stored <= offset:
            if self._finished:
                return False
            await self._grown.wait()
        return True

    async def wait_finished(self) -> None:
        """Wait until nothing follows."""
        while not self._finished:
            await self._grown.wait()

    @property
    def followers(self) -> int:
        """How many wait for more."""
        return self._grown.statistics().tasks_waiting

    # ------------------------------------------------------------ for the store

    def resumed(self) -> None:
        """Its worker has come back."""
        self._info = attrs.evolve(self._info, suspended=False)

    def written_down(self) -> None:
        """Its result is in its file."""
        self._has_result = True
        self._keeper.grew(self, 0)

    def make_safe(self) -> bool:
        """Sync the log, and what lies beside it. Blocks. True: so must the name of its directory be.

        Raises:
            StoreError, OSError: it is not safe, and cannot be.
        """
        is_new, has_result = self._is_new, self._has_result
        if is_new:
            files.sync_file(self._path / files.RUN_FILE)
        self._log.sync()
        if has_result:
            files.sync_file(self._path / files.RESULT_FILE)
        if is_new or has_result:
            files.sync_file(self._path)
        self._is_new = False
        self._has_result = self._has_result and not has_result
        return is_new

    def committed(self, end: int, error: StoreError | None) -> None:
        """It is safe up to `end`, or cannot be, as of `error`."""
        if error is not None and self._broken is None:
            self._broken = error
            logger.error("run %s: its log can take no more: %s", self._info.id, error)
            self._let_go()
        elif self._broken is None and end > self._durable:
            self._durable = end
            self._tell(end)
        self._safer.set()
        self._safer = trio.Event()

    def _check(self) -> None:
        if self._broken is not None:
            error = StoreError(str(self._broken))
            error.errno = EIO
            raise error from self._broken

    async def _wait_for_room(self, error: StoreError) -> bool:
        """Whether it is worth a try again."""
        if not is_full(error):
            return False
        self._keeper.room.none(error)
        if self._keeper.room.policy == "gap":
            return False
        with trio.CancelScope(deadline=self._patience_ends) as self._waiting:
            await trio.sleep(RETRY_S)
            return True
        return False

    def _leave_out(self, batch: Batch) -> None:
        self._log.skip(batch, self._why)
        match self._left_out:
            case [*_, (begin, to, why)] if to == batch.start and why == self._why:
                self._left_out[-1] = begin, batch.end, why
            case _:
                logger.error(
                    "run %s: its log leaves out what follows byte %d: %s", self._info.id, batch.start, self._why
                )
                self._left_out.append((batch.start, batch.end, self._why))
        self._keeper.grew(self, 0)
        self._let_go()

    def _let_go(self) -> None:
        """Nobody shall wait for a disk that does not do it: what is there can be forgotten."""
        if self._broken is not None and (self._finished or self._left_out):
            self._tell(self.end)

    def _tell(self, offset: int) -> None:
        if self._on_durable is not None:
            self._on_durable(offset)

    def _appended(self, batch: Batch) -> None:
        self._keeper.grew(self, batch.end - batch.start)
        self._wake()

    def _wake(self) -> None:
        # Most logs have no reader most of the time, and an event can be set only once.
        if self.followers or self._finished:
            self._grown.set()
            self._grown = trio.Event()
