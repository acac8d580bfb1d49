"""Who a worker is: the lock that keeps its directory to one process, and the instance id that lives there."""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tailrace.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
"""Holds the process id of the worker that runs here, for people and for signals."""

INSTANCE = ".instance"


@contextmanager
def locked(basedir: Path) -> Iterator[str]:
    """Keeps `basedir`, which is made if it is missing, for this process; gives its instance id.

    Raises:
        LocalProtocolError: Another process has it.
        OSError: The directory cannot be made or written.
    """
    basedir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(basedir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, basedir)
        yield _instance(basedir)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, basedir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise LocalProtocolError(
            f"{basedir}: another worker runs here (process {holder}); stop that one first"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _instance(basedir: Path) -> str:
    path = basedir / INSTANCE
    if path.exists() and (known := path.read_text(encoding="ascii").strip()):
        return known
    made = uuid.uuid4().hex
    beside = path.with_suffix(".new")
    beside.write_text(f"{made}\n", encoding="ascii")
    beside.replace(path)
    return made
