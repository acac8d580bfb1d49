"""A file that appears when it is complete.

It is written beside its target, synced, and renamed over it. Until then, and after any failure, the target is as it
was. Three things go on at once: who writes brings more, a thread hashes and writes what was brought, and another one
has the disk take what was written, so that the sync at the end is short.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

import trio

from tailrace._core import write_chunks
from tailrace.files.ahead import SyncAhead
from tailrace.files.behind import Behind

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from tailrace._core import Batch, Blake3

BATCH_BYTES = 1024 * 1024
"""Small writes are gathered up to this: a thread's start (some 50 µs) is little beside what a megabyte takes."""


@final
class AtomicFile:
    """Writes the file `path`. What the operating system refuses is raised as `OSError`, by any call that comes later.

    A symbolic link at `path` is replaced, not followed; one to a device or a pipe, and these themselves, are refused.
    Without `mode`, a file that is replaced hands on its own.

    Example:
        async with AtomicFile(Path("result.bin")) as file:
            await file.write(data)
            await file.commit()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._temporary = self._path.with_name(temporary_name(self._path.name))
        self._descriptor = -1
        self._gathered = bytearray()
        self._behind = Behind()
        # It is `fdatasync`, not only the beginning of a write-back: a disk that has a cache of its own empties it too.
        self._ahead = SyncAhead(lambda: os.fdatasync(self._descriptor))

    async def __aenter__(self) -> Self:
        await trio.to_thread.run_sync(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await self._behind.stop()
            await trio.to_thread.run_sync(self._drop)

    async def write(self, data: Buffer) -> None:
        """Appends `data`. Cancelled: it was written or it was not; the target is as it was in any case."""
        self._gathered += data
        if len(self._gathered) >= BATCH_BYTES:
            await self._flush()
        else:
            await trio.lowlevel.checkpoint()

    async def write_batch(self, batch: Batch, digest: Blake3) -> None:
        """Appends a batch's chunks, and has the digest go over them: it has by `written`. Cancelled: as `write`."""
        if self._gathered:
            await self._flush()
        await self._behind.give(batch.chunk_size, partial(self._write_batch, batch, digest))

    async def written(self) -> None:
        """Waits until all batches were written and hashed. Cancellation changes nothing."""
        await self._behind.wait()

    async def commit(self, mode: int | None = None, times: tuple[float, float] | None = None) -> None:
        """Puts the file in its place, durably. Called once, last.

        Args:
            mode: permission bits; None: those of the file that is replaced, or what the umask leaves.
            times: access and modification time, Unix seconds.

        Cancelled before it began: nothing changed. Once begun it is carried out.
        """
        if self._gathered:
            await self._flush()
        await self._behind.wait()
        await trio.to_thread.run_sync(self._commit, mode, times)

    def _open(self) -> None:
        _check_replaceable(self._path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        # Until it is in its place nobody else reads it: there it may be a secret.
        self._descriptor = os.open(self._temporary, flags, 0o600)

    async def _flush(self) -> None:
        data, self._gathered = self._gathered, bytearray()
        await self._behind.give(len(data), partial(self._write, data))

    def _write(self, data: bytearray) -> None:
        write_all(self._descriptor, data)
        self._ahead.wrote(len(data))

    def _write_batch(self, batch: Batch, digest: Blake3) -> None:
        before = digest.length
        write_chunks(self._descriptor, batch, digest)
        self._ahead.wrote(digest.length - before)

    def _commit(self, mode: int | None, times: tuple[float, float] | None) -> None:
        self._ahead.finish()
        if mode is None:
            mode = _mode_of_file(self._path)
        os.fchmod(self._descriptor, 0o666 & ~umask() if mode is None else mode)
        if times is not None:
            os.utime(self._descriptor, times)
        os.fsync(self._descriptor)
        self._temporary.rename(self._path)
        self._close()
        sync_directory(self._path.parent)

    def _drop(self) -> None:
        self._ahead.stop()
        if self._descriptor >= 0:
            self._close()
            with suppress(FileNotFoundError):
                self._temporary.unlink()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def temporary_name(name: str) -> str:
    """A name beside `name` that nobody has: hidden, and short enough where `name` itself is not."""
    return f".{name[:60]}.{secrets.token_hex(8)}.part"


def umask() -> int:
    """What this process takes from the modes of new files. Asked of /proc: `os.umask` tells by changing it for all."""
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1], 8) for line in status if line.startswith(b"Umask:"))


def write_all(descriptor: int, data: Buffer) -> None:
    """Writes all of `data`, however little the system takes at once."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.write(descriptor, view[done:])


def sync_directory(path: Path) -> None:
    """Makes what was renamed in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_replaceable(path: Path) -> None:
    """Raises `OSError` where a file cannot or must not stand: `/dev/null` is not to become one."""
    try:
        found = path.stat()
    except OSError:
        return  # nothing, or a link to nothing; what is wrong with the directory is found when it is used
    if stat.S_ISDIR(found.st_mode):
        if not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    elif not stat.S_ISREG(found.st_mode):
        raise FileExistsError(errno.EEXIST, "Is a device, a pipe or a socket", str(path))


def _mode_of_file(path: Path) -> int | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else None
