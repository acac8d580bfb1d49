"""Directories of builders that are no more."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("tailrace.worker")

KEPT = frozenset({"info"})
"""What a worker's directory holds beside builders' directories. Names that begin with a dot are kept as well."""


async def remove_leftovers(basedir: Path, keep: set[str]) -> None:
    """Removes the directories in `basedir` that are not in `keep`; files, links and hidden directories stay.

    Runs in a thread, which a cancellation leaves behind.
    """
    await trio.to_thread.run_sync(_remove, basedir, keep | KEPT, abandon_on_cancel=True)


def _remove(basedir: Path, keep: set[str]) -> None:
    for entry in sorted(basedir.iterdir()):
        if entry.name in keep or entry.name.startswith(".") or entry.is_symlink() or not entry.is_dir():
            continue
        logger.info("removing %s, which belongs to no builder", entry)
        shutil.rmtree(entry, onerror=_report)


def _report(_function: object, path: str, _error: object) -> None:
    logger.warning("cannot remove %s", path)
