"""What a worker says of itself: the answer to `getWorkerInfo`, with Buildbot's keys."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING

from tailrace._core import __version__

from .commands import versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tailrace._core import Value

    from .config import Manners

INFO_BYTES_MAX = 64 * 1024
"""How much of each file in `info/` is told: these are notes for people."""

_SECRET = re.compile(r"pass|secret|token|credential|private|auth|(^|_)key($|_)|api_?key|cookie", re.IGNORECASE)


def worker_info(basedir: Path, manners: Manners) -> dict[str, Value]:
    """Reads files; call it in a thread.

    Keys: the files of `info/` by name; `os_*` from /etc/os-release; `environ`, `system`, `basedir`, `numcpus`,
    `version`, `worker_commands`, `delete_leftover_dirs`, `encoding`, `software`; `hostname` and `machine`.
    """
    return {
        **_os_release(),
        "hostname": platform.node(),
        "machine": platform.machine(),
        **_notes(basedir / "info"),
        "environ": reported_environment(os.environ, manners),
        "system": os.name,
        "basedir": str(basedir),
        "numcpus": manners.numcpus or len(os.sched_getaffinity(0)),
        "version": __version__,
        "worker_commands": versions(),
        "delete_leftover_dirs": manners.delete_leftover_dirs,
        "encoding": "utf-8",
        "software": f"tailrace {__version__}",
    }


def reported_environment(environ: Mapping[str, str], manners: Manners) -> dict[str, Value]:
    """The environment as the master may see it: `filtered` leaves out variables whose names look like secrets."""
    if manners.report_environ == "none":
        return {}
    return {
        name: _text(value)
        for name, value in environ.items()
        if manners.report_environ == "all" or not _SECRET.search(name)
    }


def _os_release() -> dict[str, Value]:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return {}
    return {f"os_{key.lower()}": value for key, value in found.items()}


def _notes(directory: Path) -> dict[str, Value]:
    """The files of `info/`. Bytes that are not UTF-8 are replaced: a note must not keep a worker from starting."""
    notes: dict[str, Value] = {}
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError:
        return notes
    for path in paths:
        try:
            with path.open("rb") as file:
                notes[_text(path.name)] = file.read(INFO_BYTES_MAX).decode(errors="replace").strip()
        except OSError as error:
            notes[_text(path.name)] = f"(not readable: {error.strerror})"
    return notes


def _text(value: str) -> str:
    """Without the surrogates that stand for bytes which are not UTF-8."""
    return os.fsencode(value).decode(errors="replace")
