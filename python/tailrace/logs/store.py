"""The log store: runs are made, read, followed and finished here."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, final

import attrs
import trio
from trio.to_thread import run_sync as to_thread

from tailrace._core import LogReader, LogWriter
from tailrace.errors import StoreError
from tailrace.logs import directory as files
from tailrace.logs.catalog import BuilderSeen, Catalog, CatalogDamaged, WorkerSeen
from tailrace.logs.commit import Committer
from tailrace.logs.follow import FOLLOWERS_AT_ONCE, Reading
from tailrace.logs.recovery import rebuild, recover
from tailrace.logs.replay import Replay, Verified, replay, verify
from tailrace.logs.room import RETRY_S, Room, WhenFull
from tailrace.logs.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tailrace._core import Batch, Record
    from tailrace.logs.commit import Durability
    from tailrace.logs.info import RunInfo

logger = logging.getLogger("tailrace.logs")

_READERS: Final = 8
"""Threads that read and write logs at once: as many as a disk has use for."""


_SEALING_PAUSE_S: Final = 1.0
_SEALED_AT_ONCE: Final = 64
"""Runs for which a thread is started, and the catalogue written."""


@asynccontextmanager
async def open_store(
    directory: Path, durability: Durability = "disk", when_full: WhenFull = "wait"
) -> AsyncIterator[LogStore]:
    """Open the store in `directory`, which is made if it is missing.

    Runs that were running when the last process ended go on running, and wait for their worker: see
    `LogStore.abandoned`. One whose log has come to its end meanwhile is finished from it.

    What was appended is made safe in the background, see `Durability`. With `disk` that is also done on the way out.
    `when_full`: what `RunWriter.put` does while there is no room. A result for which there is none is written later.

    Raises:
        StoreError: another process has it open, or it was written by a newer Tailrace. The text says what to do.
        OSError: it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        hold = stack.enter_context
        await to_thread(hold, files.hold(directory))
        catalog = await to_thread(_open_catalog, directory)
        # At most one thread may be at work with it when it is closed, and that one is waited for.
        stack.callback(catalog.close)
        store = LogStore(directory, catalog, durability, Room(when_full))
        store._adopt(await to_thread(recover, directory, catalog, durability))
        try:
            async with _beside(store._seal_all, store._commits.run, store._write_down_later):
                yield store
        finally:
            with trio.CancelScope(shield=True):
                await store._try_again()
            await store._commits.commit()


@final
@attrs.frozen(kw_only=True)
class StoreStatistics:
    """A store at this moment."""

    running: int  # runs that are written to
    followers: int  # tasks that wait for one of them to grow
    sealing: int  # runs that are being compressed


@final
class LogStore:
    """Runs, and their logs. Made by `open_store`."""

    def __init__(self, directory: Path, catalog: Catalog, durability: Durability, room: Room) -> None:
        self.room = room
        self._directory = directory
        self._catalog = catalog
        self._durability: Durability = durability
        self._commits = Committer(partial(files.sync_runs, directory))
        self._one = trio.CapacityLimiter(1)  # for the catalogue
        self._io = trio.CapacityLimiter(_READERS)
        self._turns = trio.Semaphore(FOLLOWERS_AT_ONCE)
        self._live: dict[str, RunWriter] = {}
        self._abandoned: dict[str, RunWriter] = {}
        self._unwritten: dict[str, tuple[RunWriter, LogWriter]] = {}
        self._is_unwritten = trio.Event()
        self._sealing = 0
        self._ended = trio.Event()
        self._ended.set()  # the last process may have left some unsealed

    # ------------------------------------------------------------ runs

    async def create(self, info: RunInfo) -> RunWriter:
        """Begin a run. Cancelled: nothing was made.

        Raises:
            StoreError: there is one of that id, or it cannot be written.
        """
        log = await to_thread(self._make, info, limiter=self._one)
        return self._write(info, log)

    def abandoned(self) -> list[RunInfo]:
        """The runs that were running when the last process ended, the oldest first, but those that `resume` or `lose`
        has taken since. Who follows one of them waits."""
        return sorted((writer.info for writer in self._abandoned.values()), key=lambda info: (info.started, info.id))

    async def resume(self, run_id: str) -> RunWriter:
        """Go on with the log of an abandoned run: at `end` of the writer, where the chain is its `chain`.

        What stands before it is in the file, and `on_durable` says when it is safe. Cancelled: it is still abandoned.

        Raises:
            StoreError: no such run is abandoned, or it cannot be written down that it goes on.
        """
        writer = self._take_abandoned(run_id)
        writer.resumed()
        try:
            await to_thread(self._catalog.put, writer.info, limiter=self._one)
        except BaseException:
            self._abandoned[run_id] = writer
            raise
        return writer

    async def lose(self, run_id: str, reason: str) -> RunInfo:
        """End an abandoned run: nobody knows how it went on. `reason` is a sentence for people.

        A run whose end had been written down, and only its log did not outlive the machine, is complete, and its
        receipt does not agree.

        Raises:
            StoreError: no such run is abandoned, or the end cannot be written down.
        """
        await trio.lowlevel.checkpoint()
        writer = self._take_abandoned(run_id)
        if writer.info.receipt is not None:
            return await writer.finish(receipt={**writer.info.receipt, "agrees": False})
        return await writer.finish(state="lost", failure=("ConnectionLost", reason))

    async def wait_ended(self, run_id: str) -> None:
        """Wait until a run has ended, or this store is written to no more. Cancelling it leaves nothing behind."""
        await trio.lowlevel.checkpoint()
        if (writer := self._live.get(run_id)) is not None:
            await writer.wait_finished()

    async def replay(self, run: str | RunInfo) -> Replay:
        """What a log says, gone through from its beginning: for who goes on with one, or counts it."""
        reader, _ = await self._reader(run)
        return await to_thread(replay, reader, limiter=self._io)

    async def verify(self, run: str | RunInfo) -> Verified:
        """Count a log anew from its stored bytes, and compare that with its receipt. Cancelled: within a moment.

        Raises:
            StoreError: there is no such run, or its log cannot be opened. One that is damaged is not an error.
        """
        info = await self.run(run if isinstance(run, str) else run.id)
        reader, _ = await self._reader(info)
        return await to_thread(verify, reader, info, self._durability, limiter=self._io)

    async def runs(self, limit: int = 100, before: str | None = None, state: str | None = None) -> list[RunInfo]:
        """The latest runs first, only those before the run `before`, only those in `state`."""
        found = await to_thread(self._catalog.runs, limit, before, state, limiter=self._one)
        return [self._as_it_is(info) for info in found]

    async def run(self, name: str) -> RunInfo:
        """The run of that id, or whose id alone begins so; `last`: the one that was started last.

        Raises:
            StoreError: there is none, or several. The text says which.
        """
        return self._as_it_is(await to_thread(self._catalog.find, name, limiter=self._one))

    # ------------------------------------------------------------ logs

    async def read(
        self, run: str | RunInfo, *, from_line: int = 1, tail: int | None = None, channel: str | None = None
    ) -> AsyncGenerator[Record]:
        """The log records that are stored so far; else as `follow`."""
        async with aclosing(self._records(run, from_line, tail, channel, follow=False)) as records:
            async for record in records:
                yield record

    async def follow(
        self, run: str | RunInfo, *, from_line: int = 1, tail: int | None = None, channel: str | None = None
    ) -> AsyncGenerator[Record]:
        """The log records of a run, stored ones and those to come, until it has ended.

        Lines are counted from 1 where they begin, in `channel` (`stdout`, `stderr`, `header`, `log:NAME`), or else in
        stdout and stderr together; without a channel the records of all channels come. The first record is cut at
        `from_line`, or at the line from which on `tail` lines are there now. Nothing is queued for a slow reader.

        Raises:
            StoreError: there is no such run, no such channel, or its log is damaged.
        """
        async with aclosing(self._records(run, from_line, tail, channel, follow=True)) as records:
            async for record in records:
                yield record
                del record

    async def batches(self, run: str | RunInfo, *, from_offset: int = 0, follow: bool = False) -> AsyncGenerator[Batch]:
        """The raw journal from a record's offset on, all kinds of records; with `follow` until the run has ended.

        Raises:
            StoreError: there is no such run, no record begins at the offset, or its log is damaged.
        """
        reading = await self._reading(run)
        async with aclosing(reading.batches(from_offset, follow=follow)) as batches:
            async for batch in batches:
                yield batch
                del batch

    async def place(
        self,
        run: str | RunInfo,
        *,
        from_line: int = 1,
        tail: int | None = None,
        channel: str | None = None,
        wait: bool = False,
    ) -> tuple[int, int | None]:
        """Where `follow` would begin: a record's offset, for `batches`, and what to tell its `Record.cut`, if cut.

        With `wait` not before that line has begun, or the run has ended.
        """
        reading = await self._reading(run)
        return await reading.place(from_line=from_line, tail=tail, channel=channel, wait=wait)

    async def find_time(self, run: str | RunInfo, seconds: float) -> int:
        """The offset of the first log record that is not older than this Unix time; the end, if all are."""
        reader, _ = await self._reader(run)
        return await to_thread(reader.find_time, seconds, limiter=self._io)

    # ------------------------------------------------------------ workers and builders

    async def note_worker(self, name: str, instance: str, info: Mapping[str, object]) -> None:
        """A worker is attached."""
        await to_thread(self._catalog.note_worker, name, instance, info, time.time(), limiter=self._one)

    async def note_builder(self, worker: str, name: str) -> None:
        """A worker has that builder."""
        await to_thread(self._catalog.note_builder, worker, name, time.time(), limiter=self._one)

    async def workers(self) -> list[WorkerSeen]:
        """All workers that were ever attached, by name."""
        return await to_thread(self._catalog.workers, limiter=self._one)

    async def builders(self) -> list[BuilderSeen]:
        """All builders that there ever were, by worker and name."""
        return await to_thread(self._catalog.builders, limiter=self._one)

    # ------------------------------------------------------------ upkeep

    async def rebuild(self) -> None:
        """Make the catalogue of runs again from what lies beside their logs. Cancelled: it was made, or nothing was."""
        await to_thread(rebuild, self._directory, self._catalog, limiter=self._one)

    def statistics(self) -> StoreStatistics:
        """How things are."""
        followers = sum(writer.followers for writer in self._live.values())
        return StoreStatistics(running=len(self._live), followers=followers, sealing=self._sealing)

    # ------------------------------------------------------------ inside

    @property
    def durability(self) -> Durability:
        """When a log counts as safe."""
        return self._durability

    def grew(self, writer: RunWriter, size: int) -> None:
        """Called by the writer."""
        if self._durability == "disk":
            self._commits.grew(writer, size)
        else:
            writer.committed(writer.end, None)

    async def ended(self, writer: RunWriter, log: LogWriter) -> None:
        """Called by the writer."""
        self._unwritten[writer.info.id] = writer, log
        try:
            await self._try(writer, log)
        except StoreError as error:
            logger.error("run %s has ended, and that is written down later: %s", writer.info.id, error)
            self._is_unwritten.set()
        finally:
            self._live.pop(writer.info.id, None)

    async def _try(self, writer: RunWriter, log: LogWriter) -> None:
        await to_thread(self._write_down, log, writer.info, limiter=self._one)
        self._unwritten.pop(writer.info.id, None)
        writer.written_down()
        self._ended.set()

    async def _try_again(self) -> None:
        for writer, log in list(self._unwritten.values()):
            with contextlib.suppress(StoreError):
                await self._try(writer, log)

    async def _write_down_later(self) -> None:
        """Writes down what could not be at its time, as soon as it can."""
        while True:
            await self._is_unwritten.wait()
            self._is_unwritten = trio.Event()
            while self._unwritten:
                await trio.sleep(RETRY_S)
                await self._try_again()

    def _as_it_is(self, info: RunInfo) -> RunInfo:
        """What the catalogue may not know yet."""
        unwritten = self._unwritten.get(info.id)
        return info if unwritten is None else unwritten[0].info

    def _adopt(self, left: Sequence[tuple[RunInfo, LogWriter]]) -> None:
        """Runs that another process has left."""
        for info, log in left:
            self._abandoned[info.id] = writer = self._write(info, log)
            self.grew(writer, 0)

    def _take_abandoned(self, run_id: str) -> RunWriter:
        writer = self._abandoned.pop(run_id, None)
        if writer is None:
            raise StoreError(f"no run {run_id!r} waits for its worker")
        return writer

    def _write(self, info: RunInfo, log: LogWriter) -> RunWriter:
        writer = RunWriter(info, log, files.run_directory(self._directory, info.id), self, self._io)
        self._live[info.id] = writer
        return writer

    def _make(self, info: RunInfo) -> LogWriter:
        with _os_errors():
            path = files.make_run(self._directory, info)
            log = LogWriter.create(str(path))
            self._catalog.put(info)
        return log

    def _write_down(self, log: LogWriter, info: RunInfo) -> None:
        try:
            log.close()
        except StoreError as error:
            # Only the index at its end is missing, which is made again before the log is sealed.
            logger.warning("run %s: %s", info.id, error)
        with _os_errors():
            files.write_result(files.run_directory(self._directory, info.id), info)
            self._catalog.put(info)

    async def _records(
        self, run: str | RunInfo, from_line: int, tail: int | None, channel: str | None, *, follow: bool
    ) -> AsyncGenerator[Record]:
        reading = await self._reading(run)
        chosen = reading.records(from_line=from_line, tail=tail, channel=channel, follow=follow)
        async with aclosing(chosen) as records:
            async for record in records:
                yield record
                # Who waits for the next one does not hold this one.
                del record

    async def _reading(self, run: str | RunInfo) -> Reading:
        return Reading(*await self._reader(run), self._io, self._turns)

    async def _reader(self, run: str | RunInfo) -> tuple[LogReader, RunWriter | None]:
        run_id = run if isinstance(run, str) else run.id
        if (writer := self._live.get(run_id)) is None:
            run_id = (await self.run(run_id)).id
            writer = self._live.get(run_id)
        if writer is not None:
            return writer.reader(), writer
        path = files.run_directory(self._directory, run_id)
        return await to_thread(LogReader.open, str(path), limiter=self._io), None

    async def _seal_all(self) -> None:
        """Compresses one run after another, as long as the store is open. Cancelled: the next time goes on with it."""
        try:
            while True:
                await self._ended.wait()
                # Short runs come in swarms, and the disk should have time for them.
                await trio.sleep(_SEALING_PAUSE_S)
                self._ended = trio.Event()
                while run_ids := await to_thread(self._catalog.unsealed, _SEALED_AT_ONCE, limiter=self._one):
                    self._sealing = len(run_ids)
                    done = await to_thread(_seal, self._directory, run_ids, limiter=self._io)
                    await to_thread(self._catalog.sealed, done, limiter=self._one)
                    self._sealing = 0
        except StoreError as error:
            logger.error("no logs are compressed until the store is opened again: %s", error)


def _seal(directory: Path, run_ids: list[str]) -> dict[str, bool]:
    """Compress the logs of these runs. Which were; the others stay as they are, for now."""
    done = dict.fromkeys(run_ids, False)
    for run_id in run_ids:
        path = files.run_directory(directory, run_id)
        try:
            # Closed logs are only looked at. Others are of a process that died before it had closed them.
            LogWriter.recover(str(path)).close()
            files.sync_run(path)
            while LogWriter.seal_next(str(path)):
                trio.from_thread.check_cancelled()
        except (StoreError, OSError) as error:
            logger.warning("the log of run %s stays as it is: %s", run_id, error)
        else:
            done[run_id] = True
        trio.from_thread.check_cancelled()
    return done


def _open_catalog(directory: Path) -> Catalog:
    path = directory / files.CATALOGUE_FILE
    try:
        catalog = Catalog(path)
    except CatalogDamaged as error:
        logger.warning("%s: it is made again from the runs", error)
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(name).rename(path.with_name(f"{name}.damaged"))
        catalog = Catalog(path)
    return catalog


@asynccontextmanager
async def _beside(*tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Have `tasks` run beside the block, and cancelled behind it. What the block raises comes out as it is."""
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
        try:
            yield
        except BaseException as error:
            raised = error
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """What the system refuses to the store is a StoreError, whoever of its parts asked."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot write to the log store: {error}") from error
