"""One tree moved over another, file by file, and the disk made to keep it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from tailrace.errors import UnsafeArchive

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def merge_tree(source: int, target: int) -> None:
    """Moves what is in the directory `source` into the directory `target`; what stands in its way is replaced.

    All of it is checked first: a directory only goes where there is a directory or nothing, anything else never where
    there is a directory. Links in the target are not followed.

    Raises:
        UnsafeArchive: a directory of `source` is a link in `target`. Nothing was moved.
        OSError: as above, nothing was moved; or, when moving fails in spite of the check, a part was.
    """
    _check(source, target, b"")
    _move(source, target)
    # Once for all directories: an fsync of each takes a thousand times longer.
    sync_filesystem(target)


def sync_filesystem(descriptor: int) -> None:
    """Makes all that was written to the file system of `descriptor` durable, at once instead of file by file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _check(source: int, target: int, path: bytes) -> None:
    for name, is_directory in _names(source):
        there = path + name
        try:
            found = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if is_directory and stat.S_ISLNK(found.st_mode):
            raise UnsafeArchive(f"{repr(there)[2:-1]} is a link in the directory that is there")
        if is_directory and not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(there))
        if stat.S_ISDIR(found.st_mode) and not is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(there))
        if is_directory:
            with _Both(name, source, target) as (below, there_below):
                _check(below, there_below, there + b"/")


def _move(source: int, target: int) -> None:
    for name, is_directory in _names(source):
        if is_directory and _exists(name, target):
            with _Both(name, source, target) as (below, there_below):
                _move(below, there_below)
        else:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


class _Both:
    """The directories `name` of both trees, open. A link that took the place of one is not followed."""

    def __init__(self, name: bytes, source: int, target: int) -> None:
        self._name = name
        self._parents = (source, target)
        self._open: list[int] = []

    def __enter__(self) -> tuple[int, int]:
        try:
            self._open.extend(os.open(self._name, _OPEN_DIRECTORY, dir_fd=parent) for parent in self._parents)
        except OSError:
            self.__exit__()
            raise
        return self._open[0], self._open[1]

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())


def _names(directory: int) -> list[tuple[bytes, bool]]:
    with os.scandir(directory) as entries:
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]


def _exists(name: bytes, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
