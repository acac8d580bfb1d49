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
from tailrace.logs.follow import Reading
from tailrace.logs.info import with_totals
from tailrace.logs.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
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
async def open_store(directory: Path, durability: Durability = "disk") -> AsyncIterator[LogStore]:
    """Open the store in `directory`, which is made if it is missing. Runs whose master died are lost ones from then on.

    What was appended is made safe in the background, see `Durability`. With `disk` that is also done on the way out.

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
        store = LogStore(directory, catalog, durability)
        try:
            async with _beside(store._seal_all, store._commits.run):
                yield store
        finally:
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

    def __init__(self, directory: Path, catalog: Catalog, durability: Durability) -> None:
        self._directory = directory
        self._catalog = catalog
        self._durability: Durability = durability
        self._commits = Committer(partial(files.sync_runs, directory))
        self._one = trio.CapacityLimiter(1)  # for the catalogue
        self._io = trio.CapacityLimiter(_READERS)
        self._live: dict[str, RunWriter] = {}
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
        writer = RunWriter(info, log, files.run_directory(self._directory, info.id), self, self._io)
        self._live[info.id] = writer
        return writer

    async def runs(self, limit: int = 100, before: str | None = None, state: str | None = None) -> list[RunInfo]:
        """The latest runs first, only those before the run `before`, only those in `state`."""
        return await to_thread(self._catalog.runs, limit, before, state, limiter=self._one)

    async def run(self, name: str) -> RunInfo:
        """The run of that id, or whose id alone begins so; `last`: the one that was started last.

        Raises:
            StoreError: there is none, or several. The text says which.
        """
        return await to_thread(self._catalog.find, name, limiter=self._one)

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

    async def batches(self, run: str | RunInfo, *, from_offset: int = 0, follow: bool = False) -> AsyncGenerator[Batch]:
        """The raw journal from a record's offset on, all kinds of records; with `follow` until the run has ended.

        Raises:
            StoreError: there is no such run, no record begins at the offset, or its log is damaged.
        """
        reading = await self._reading(run)
        async with aclosing(reading.batches(from_offset, follow=follow)) as batches:
            async for batch in batches:
                yield batch

    async def place(
        self, run: str | RunInfo, *, from_line: int = 1, tail: int | None = None, channel: str | None = None
    ) -> tuple[int, int | None]:
        """Where `follow` would begin: a record's offset, for `batches`, and what to tell its `Record.cut`, if cut."""
        reading = await self._reading(run)
        return await reading.place(from_line=from_line, tail=tail, channel=channel)

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
        await to_thread(_rebuild, self._directory, self._catalog, limiter=self._one)

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

    async def ended(self, log: LogWriter, info: RunInfo) -> None:
        """Called by the writer."""
        try:
            await to_thread(self._write_down, log, info, limiter=self._one)
        finally:
            self._live.pop(info.id, None)
            self._ended.set()

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

    async def _reading(self, run: str | RunInfo) -> Reading:
        return Reading(*await self._reader(run), self._io)

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
    try:
        _recover(directory, catalog)
    except BaseException:
        catalog.close()
        raise
    return catalog


def _recover(directory: Path, catalog: Catalog) -> None:
    """Nobody writes to any run now. What is said to be running was left by a process that died."""
    missing = files.run_ids(directory) - catalog.ids()
    found = [files.read_run(files.run_directory(directory, run_id)) for run_id in missing]
    # What a run's directory says is older than the catalogue never, and younger after the machine's death.
    found += [files.read_run(files.run_directory(directory, info.id)) for info in catalog.running()]
    catalog.put_all(_lose(directory, info) if info.state == "running" else info for info in found)


def _lose(directory: Path, info: RunInfo) -> RunInfo:
    """A run whose master died while it ran: its log is cut to the last good record, and how it ended nobody knows."""
    path = files.run_directory(directory, info.id)
    failure = ("ConnectionLost", "the master stopped before the run ended")
    lost = attrs.evolve(info, state="lost", ended=max(files.last_change(path), info.started), failure=failure)
    try:
        log = LogWriter.recover(str(path))
        lost = with_totals(lost, log.totals())
        log.close()
    except StoreError as error:
        logger.warning("the log of run %s cannot be recovered: %s", info.id, error)
    files.write_result(path, lost)
    return lost


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


def _rebuild(directory: Path, catalog: Catalog) -> None:
    infos = [files.read_run(files.run_directory(directory, run_id)) for run_id in files.run_ids(directory)]
    catalog.replace_all(infos)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """What the system refuses to the store is a StoreError, whoever of its parts asked."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot write to the log store: {error}") from error
