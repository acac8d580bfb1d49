"""What the last process has left: which runs go on, which have ended, and what the catalogue has to be told. Blocks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from tailrace._core import LogWriter
from tailrace.errors import StoreError
from tailrace.logs import directory as files
from tailrace.logs.info import RunEnd, RunInfo, left_out, with_totals
from tailrace.logs.replay import replay

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Unpack

    from tailrace.logs.catalog import Catalog
    from tailrace.logs.commit import Durability

logger = logging.getLogger("tailrace.logs")


def recover(directory: Path, catalog: Catalog, durability: Durability) -> list[tuple[RunInfo, LogWriter]]:
    """Bring the catalogue up to date, and return the runs that go on, with their logs. Nobody may write to any run."""
    missing = files.run_ids(directory) - catalog.ids()
    found = [files.read_run(files.run_directory(directory, run_id)) for run_id in missing]
    # What a run's directory says is older than the catalogue never, and younger after the machine's death.
    found += [_found(directory, info) for info in catalog.running()]
    known = {info.id for info in found}
    # Logs that ended so lately that they are not sealed may not have been on the disk when the machine died.
    found += [catalog.find(run_id) for run_id in catalog.unsealed(-1) if run_id not in known]
    infos, left = [], []
    for info in found:
        info, log = _recover_run(directory, info, durability)
        infos.append(info)
        if log is not None:
            left.append((info, log))
    catalog.put_all(infos)
    return left


def rebuild(directory: Path, catalog: Catalog) -> None:
    """Make the catalogue again from what lies beside the logs."""
    infos = [files.read_run(files.run_directory(directory, run_id)) for run_id in files.run_ids(directory)]
    catalog.replace_all(infos)


def _found(directory: Path, info: RunInfo) -> RunInfo:
    """A run that was running, as its directory has it; as the catalogue has it, if that says nothing readable."""
    path = files.run_directory(directory, info.id)
    found = files.read_run(path) if path.is_dir() else info
    return found if found.worker else info


def _recover_run(directory: Path, info: RunInfo, durability: Durability) -> tuple[RunInfo, LogWriter | None]:
    """A run as its log has it. None: it has ended."""
    path = files.run_directory(directory, info.id)
    if info.state != "running" and info.receipt is None:
        return info, None
    if not path.is_dir():
        return _from_its_begin(directory, info)
    try:
        # Cut to the last good record.
        log = LogWriter.recover(str(path))
        reader = log.reader()
        if not reader.is_ended() and not left_out(info):
            files.describe(path, info)
            return attrs.evolve(info, state="running", suspended=True, ended=None), log
        log.close()
        if info.state == "running":
            info = _end(path, with_totals(info, log.totals()), **replay(reader).end(durability))
        else:
            # Perhaps the catalogue alone knew that.
            files.write_result(path, info)
        _make_safe(log, path)
        return info, None
    except StoreError as error:
        logger.warning("the log of run %s cannot be recovered: %s", info.id, error)
        if info.state != "running":
            return info, None
        failure = ("StoreError", f"the master stopped before the run ended, and {error}")
        return _end(path, info, state="lost", failure=failure), None


def _make_safe(log: LogWriter, path: Path) -> None:
    """Its worker is told to forget it as soon as it comes: from then on the disk has the only copy."""
    log.sync()
    files.sync_run(path)
    for names in (path, path.parent):
        files.sync_file(names)


def _from_its_begin(directory: Path, info: RunInfo) -> tuple[RunInfo, LogWriter]:
    """The catalogue alone was on the disk when the machine died: then the worker holds all of the run still."""
    info = RunInfo(
        id=info.id,
        worker=info.worker,
        builder=info.builder,
        command=info.command,
        title=info.title,
        started=info.started,
        suspended=True,
    )
    return info, LogWriter.create(str(files.make_run(directory, info)))


def _end(path: Path, info: RunInfo, **end: Unpack[RunEnd]) -> RunInfo:
    """Write down how it ended. When: nobody knows better than its files."""
    ended = max(files.last_change(path), info.started)
    info = attrs.evolve(attrs.evolve(info, ended=ended), **end)
    files.write_result(path, info)
    return info
