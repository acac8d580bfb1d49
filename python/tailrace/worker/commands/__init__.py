"""The commands of a worker, one family per file, and the tables that name them all."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from .command import VERSION
from .files import CopyDirectory, Glob, ListDirectory, MakeDirectory, RemoveDirectory, RemoveFile, Stat
from .git import git
from .repo import repo
from .shell import Shell
from .transfer import DownloadDirectory, DownloadFile, UploadDirectory, UploadFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tailrace.worker.journal import MemoryOutput
    from tailrace.worker.supervisor import Supervised

    from .command import Command, Context

__all__ = ["PLAIN", "SUPERVISED", "PlainEntry", "versions"]


@attrs.frozen
class PlainEntry:
    """A command without children.

    Attributes:
        make: Its class.
        interrupted_rc: Its `rc` when it was interrupted.
    """

    make: Callable[[Context], Command[MemoryOutput]]
    interrupted_rc: int = -1


SUPERVISED: Mapping[str, Callable[[Context], Command[Supervised]]] = MappingProxyType(
    {"shell": Shell, "rmdir": RemoveDirectory, "cpdir": CopyDirectory, "git": git, "repo": repo}
)
"""The commands that run children."""

PLAIN: Mapping[str, PlainEntry] = MappingProxyType(
    {
        "uploadFile": PlainEntry(UploadFile, interrupted_rc=1),
        "uploadDirectory": PlainEntry(UploadDirectory, interrupted_rc=1),
        "downloadFile": PlainEntry(DownloadFile, interrupted_rc=1),
        "downloadDirectory": PlainEntry(DownloadDirectory, interrupted_rc=1),
        "mkdir": PlainEntry(MakeDirectory),
        "stat": PlainEntry(Stat),
        "glob": PlainEntry(Glob),
        "listdir": PlainEntry(ListDirectory),
        "rmfile": PlainEntry(RemoveFile),
    }
)
"""All others."""


def versions() -> dict[str, str]:
    """What `getWorkerInfo` says: each command and its version."""
    return dict.fromkeys((*SUPERVISED, *PLAIN), VERSION)
