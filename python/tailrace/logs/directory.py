"""A store's directory: who may use it, and what lies in it beside the segments and the catalogue.

DIR/state-version       the version of this layout
DIR/store.lock          held by the process that has the store open
DIR/catalogue.sqlite    can be made again from the rest
DIR/runs/ID/            one run: run.json says what was started, result.json, when it has ended, how;
                        its log is in segments (rust/store/FORMAT.md)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from typing import TYPE_CHECKING, Final

from tailrace.errors import StoreError
from tailrace.logs.info import RunInfo, check_id, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger("tailrace.logs")

VERSION: Final = 1
"""Of the layout. A directory that says more was written by a newer Tailrace, and is left alone."""

VERSION_FILE: Final = "state-version"
CATALOGUE_FILE: Final = "catalogue.sqlite"
RUN_FILE: Final = "run.json"
RESULT_FILE: Final = "result.json"

_LOCK_FILE: Final = "store.lock"
_RUNS: Final = "runs"
_RUN_FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a run's description. A receipt of 1,024 named logs is far below it."""


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Make `directory` a store's, and keep other processes out. The kernel lets go when the process ends, anyhow.

    Raises:
        StoreError: another process has it, or it is of a newer version.
        OSError: it cannot be written.
    """
    (directory / _RUNS).mkdir(parents=True, exist_ok=True, mode=0o700)
    # Not truncated before it is ours: who holds it has written its id there.
    with os.fdopen(os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(32).strip() or "unknown"
            raise StoreError(f"{directory} is in use by pid {holder}: stop that process first") from None
        check_version(directory)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_version(directory: Path) -> None:
    """Raise StoreError if `directory` was written by a newer Tailrace. One that says nothing is from now on ours."""
    path = directory / VERSION_FILE
    try:
        version = int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        _replace(path, f"{VERSION}\n")
        return
    except ValueError:
        raise StoreError(f"{path} holds no version number: restore it, or use another directory") from None
    if version > VERSION:
        raise StoreError(
            f"{directory} is of version {version}, this Tailrace knows up to {VERSION}: use a newer Tailrace"
        )


def run_directory(directory: Path, run_id: str) -> Path:
    """Where a run's files are."""
    return directory / _RUNS / check_id(run_id)


def run_ids(directory: Path) -> set[str]:
    """All runs that have a directory."""
    with os.scandir(directory / _RUNS) as entries:
        return {entry.name for entry in entries if "." not in entry.name and entry.is_dir(follow_symlinks=False)}


def make_run(directory: Path, info: RunInfo) -> Path:
    """Make a new run's directory.

    Raises:
        StoreError: there is one already.
    """
    path = run_directory(directory, info.id)
    # It appears with its description in it.
    new = path.with_name(f"{info.id}.new")
    new.mkdir(mode=0o700, exist_ok=True)
    _write(new / RUN_FILE, to_json(info) + "\n")
    try:
        new.rename(path)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        raise StoreError(f"there is a run {info.id} already") from None
    return path


def describe(path: Path, info: RunInfo) -> None:
    """Write down what was started, if the machine's death has taken that away."""
    if _read(path / RUN_FILE) is None:
        _replace(path / RUN_FILE, to_json(info) + "\n")


def write_result(path: Path, info: RunInfo) -> None:
    """Write down how a run ended. A process that dies leaves all of it, or nothing; the machine, perhaps a torn file,
    until the next commit: then the log tells it again, or the run is a lost one.

    A file of its own: file systems sync what replaces another file, and there may be hundreds of runs a second.
    """
    _replace(path / RESULT_FILE, to_json(info) + "\n")


def sync_run(path: Path) -> None:
    """Make what is known of a run that has ended safe."""
    for name in (RUN_FILE, RESULT_FILE):
        with contextlib.suppress(FileNotFoundError):
            sync_file(path / name)


def sync_runs(directory: Path) -> None:
    """Make the names of all runs safe."""
    sync_file(directory / _RUNS)


def sync_file(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, safe.

    Raises:
        OSError: they are not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def read_run(path: Path) -> RunInfo:
    """What a run's directory says that it is. One that says nothing readable is a lost run, and its title tells so."""
    for name in (RESULT_FILE, RUN_FILE):
        if (info := _read(path / name)) is not None:
            return info
    started = path.stat().st_mtime
    title = "(its description was damaged)"
    return RunInfo(id=path.name, worker="", builder=None, command="", title=title, started=started, state="lost")


def last_change(path: Path) -> float:
    """When a run's log grew last."""
    with os.scandir(path) as entries:
        return max((entry.stat().st_mtime for entry in entries), default=path.stat().st_mtime)


def _read(path: Path) -> RunInfo | None:
    try:
        with path.open(encoding="utf-8") as file:
            info = from_json(file.read(_RUN_FILE_BYTES_MAX))
        if info.id == path.parent.name:
            return info
        logger.warning("%s is of another run, %s", path, info.id)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read: %s", path, error)
    return None


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    _write(new, text)
    new.replace(path)


def _write(path: Path, text: str) -> None:
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
