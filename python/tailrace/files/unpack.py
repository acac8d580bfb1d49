"""A tar stream as a directory, confined to it, which appears when the stream is complete and harmless.

Theory of operation. The archive is unpacked into a private directory beside the target, by a `TreeUnpacker`: every
step of every path is opened by the descriptor of the directory above it and never through a link, so that neither an
archive nor somebody who exchanges directories for links meanwhile leads a write elsewhere. When the end was read, all
links are followed on paper: where one could lead out of the root, the archive is refused. Then the disk is synced once,
and the tree is moved: as a whole where there is no target yet, else file by file, after all of it was seen to fit.

Three things go on at once: who writes brings more, a thread unpacks what was brought, about a megabyte each time, and
another one has the disk take what was unpacked, so that the sync at the end is short.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from functools import partial
from typing import TYPE_CHECKING, Self, final

import trio

from tailrace._core import TreeUnpacker
from tailrace.files.ahead import SyncAhead
from tailrace.files.atomic import temporary_name
from tailrace.files.behind import Behind
from tailrace.files.inflate import Inflater
from tailrace.files.merge import merge_tree, sync_filesystem

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from tailrace._core import Batch, Blake3
    from tailrace.files.tree import Compression

BATCH_BYTES = 1024 * 1024
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@final
class Unpacker:
    """Unpacks one archive as the directory `path`.

    If `path` exists it keeps what the archive does not name, and files in it are replaced. Permissions are taken over
    without set-id bits, modification times of files too, owners are not.

    Args:
        path: the directory. Its parent must exist.
        compress: how the stream is compressed.
        bytes_max: how many bytes the entries may hold together; None: as many as there are.

    Raises:
        UnsafeArchive: an absolute path, `..`, a link that leads out, a device, a pipe, a name that comes twice, a path
            through a link (of the archive or of the target), and what is no whole archive. Nothing was changed.
        LimitExceeded: `bytes_max`. Nothing was changed.
        OSError: from the operating system. Nothing was changed, unless it came from moving over an existing directory.

        Any of them by `write` or `commit`, whichever comes next.

    Example:
        async with Unpacker(Path("results")) as tree:
            async for piece in pieces:
                await tree.write(piece)
            await tree.commit()
    """

    def __init__(
        self, path: str | os.PathLike[str], compress: Compression | None = None, bytes_max: int | None = None
    ) -> None:
        self._path = os.fspath(path)
        self._inflater = Inflater(compress)
        self._bytes_max = bytes_max
        self._gathered = bytearray()
        self._place: _Place | None = None
        self._tree: TreeUnpacker | None = None
        self._behind = Behind()
        self._ahead = SyncAhead(self._sync)

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
        """Takes the next bytes of the stream. Cancelled: they were taken or not; the target is as it was anyway."""
        self._gathered += data
        if len(self._gathered) >= BATCH_BYTES:
            await self._flush()
        else:
            await trio.lowlevel.checkpoint()

    async def write_batch(self, batch: Batch, digest: Blake3) -> None:
        """Takes a batch's chunks, which are not compressed, and has the digest go over them: it has by `written`.

        Cancelled: as `write`.
        """
        if self._gathered:
            await self._flush()
        await self._behind.give(batch.chunk_size, partial(self._unpack_batch, batch, digest))

    async def written(self) -> None:
        """Waits until all batches were unpacked and hashed. Cancellation changes nothing."""
        await self._behind.wait()

    async def commit(self) -> None:
        """Checks that the archive is complete, and moves it in, durably. Called once, last.

        Cancelled before it began: nothing changed. Once begun it is carried out.
        """
        await self._flush()
        await self._behind.wait()
        await trio.to_thread.run_sync(self._commit)

    def _open(self) -> None:
        self._place = _Place(self._path)
        self._tree = TreeUnpacker(self._place.tree, self._bytes_max)

    async def _flush(self) -> None:
        data, self._gathered = self._gathered, bytearray()
        await self._behind.give(len(data), partial(self._unpack, data))

    def _unpack(self, data: bytearray) -> None:
        assert self._tree is not None
        self._ahead.wrote(len(data))
        for piece in self._inflater.inflate(data):
            self._tree.write(piece)

    def _unpack_batch(self, batch: Batch, digest: Blake3) -> None:
        assert self._tree is not None
        self._ahead.wrote(batch.chunk_size)
        self._tree.write_batch(batch, digest)

    def _sync(self) -> None:
        assert self._place is not None
        sync_filesystem(self._place.tree)

    def _commit(self) -> None:
        assert self._place is not None
        assert self._tree is not None
        self._inflater.check_whole()
        self._tree.finish()
        self._ahead.finish()
        self._place.move_in()

    def _drop(self) -> None:
        self._ahead.stop()
        self._tree = None
        if self._place is not None:
            self._place.close()


@final
class _Place:
    """The private directory beside the target, and the way from one to the other."""

    def __init__(self, path: str) -> None:
        # Where a caller names a link, the directory behind it is meant. Only the archive is not trusted.
        parent, self._name = os.path.split(os.path.realpath(path))
        self._parent = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._temporary = temporary_name(self._name)
        self.tree = -1
        self._private = -1
        try:
            self._check_target()
            os.mkdir(self._temporary, 0o700, dir_fd=self._parent)
            self._private = os.open(self._temporary, _OPEN_DIRECTORY, dir_fd=self._parent)
            os.mkdir("tree", dir_fd=self._private)
            self.tree = os.open("tree", _OPEN_DIRECTORY, dir_fd=self._private)
        except BaseException:
            self.close()
            raise

    def move_in(self) -> None:
        sync_filesystem(self.tree)
        if self._check_target():
            target = os.open(self._name, _OPEN_DIRECTORY, dir_fd=self._parent)
            try:
                merge_tree(self.tree, target)
            finally:
                os.close(target)
        else:
            os.rename("tree", self._name, src_dir_fd=self._private, dst_dir_fd=self._parent)
        os.fsync(self._parent)

    def close(self) -> None:
        for descriptor in (self.tree, self._private):
            if descriptor >= 0:
                os.close(descriptor)
        if self._private >= 0:
            shutil.rmtree(self._temporary, ignore_errors=True, dir_fd=self._parent)
        os.close(self._parent)

    def _check_target(self) -> bool:
        """Whether the target is there already; then it must be a directory."""
        try:
            found = os.stat(self._name or ".", dir_fd=self._parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._name)
        return True
