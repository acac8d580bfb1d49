"""File Impls on the master's own disk, each confined to a root that the caller gives.

Hand one to `Master.start` among the arguments of a transfer: the master closes it when the command has ended. Who uses
one with a command of its own calls `aclose` in that command's `remote_complete`.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import trio

from tailrace.errors import LimitExceeded, LocalProtocolError
from tailrace.files import AtomicFile, FileBlocks, Unpacker, pack
from tailrace.link import BatchWriterImpl, BlockReaderImpl, FileReaderImpl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tailrace._core import Batch, Blake3, Block


@runtime_checkable
class Closes(Protocol):
    """An Impl that has something to let go of when its transfer is over, however it ended."""

    async def aclose(self) -> None:
        """May be called more than once."""


@final
class DiskWriter(BatchWriterImpl):
    """Puts what `uploadFile` sends at `path` below `root`, whole or not at all. Missing parents are made.

    Args:
        root: the directory that is not left, also not through links that are in it.
        path: relative to `root`.
        mode: permission bits; None: those of the file that is replaced, or the umask's.
        maxsize: more bytes than that are refused.
    """

    def __init__(
        self, root: str | os.PathLike[str], path: str, *, mode: int | None = None, maxsize: int | None = None
    ) -> None:
        self._root = Path(root)
        self._path = path
        self._mode = mode
        self._left = maxsize
        self._times: tuple[float, float] | None = None
        self._file: AtomicFile | None = None

    async def remote_write(self, data: bytes) -> None:
        """Writes beside the target."""
        self._spend(len(data))
        await (await self._opened()).write(data)

    async def write_batch(self, batch: Batch, digest: Blake3) -> None:
        """Writes beside the target."""
        self._spend(batch.chunk_size)
        await (await self._opened()).write_batch(batch, digest)

    async def written(self) -> None:
        """Waits for what is being written."""
        await (await self._opened()).written()

    async def remote_utime(self, accessed_modified: tuple[float, float]) -> None:
        """Remembers the file's times."""
        self._times = accessed_modified

    async def remote_unpack(self) -> None:
        """A file has nothing to unpack."""
        raise LocalProtocolError(f"{self._path} is to be a file, not a tree")

    async def remote_close(self) -> None:
        """Syncs the file and moves it to its place."""
        await (await self._opened()).commit(mode=self._mode, times=self._times)
        await self.aclose()

    async def aclose(self) -> None:
        """Without `remote_close` before, nothing has changed."""
        file, self._file = self._file, None
        if file is not None:
            await file.__aexit__(None, None, None)

    def _spend(self, size: int) -> None:
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise LimitExceeded(f"{self._path} is larger than it may be")

    async def _opened(self) -> AtomicFile:
        if self._file is None:
            path = await trio.to_thread.run_sync(_place, self._root, self._path)
            file = AtomicFile(path)
            await file.__aenter__()
            self._file = file
        return self._file


@final
class TreeWriter(BatchWriterImpl):
    """Unpacks what `uploadDirectory` sends as the directory `path` below `root`, confined to it, when all is here."""

    def __init__(self, root: str | os.PathLike[str], path: str, *, maxsize: int | None = None) -> None:
        self._root = Path(root)
        self._path = path
        self._maxsize = maxsize
        self._tree: Unpacker | None = None

    async def remote_write(self, data: bytes) -> None:
        """Unpacks beside the target."""
        await (await self._opened()).write(data)

    async def write_batch(self, batch: Batch, digest: Blake3) -> None:
        """Unpacks beside the target."""
        await (await self._opened()).write_batch(batch, digest)

    async def written(self) -> None:
        """Waits for what is being unpacked."""
        await (await self._opened()).written()

    async def remote_utime(self, accessed_modified: tuple[float, float]) -> None:
        """A tree brings its times with it."""

    async def remote_unpack(self) -> None:
        """The stream is complete. It is moved in when its digest was verified, too."""

    async def remote_close(self) -> None:
        """Syncs the tree and moves it to its place."""
        await (await self._opened()).commit()
        await self.aclose()

    async def aclose(self) -> None:
        """Without `remote_close` before, nothing has changed."""
        tree, self._tree = self._tree, None
        if tree is not None:
            await tree.__aexit__(None, None, None)

    async def _opened(self) -> Unpacker:
        if self._tree is None:
            path = await trio.to_thread.run_sync(_place, self._root, self._path)
            tree = Unpacker(path, bytes_max=self._maxsize)
            await tree.__aenter__()
            self._tree = tree
        return self._tree


@final
class DiskReader(BlockReaderImpl):
    """Gives `downloadFile` the file `path` below `root`."""

    def __init__(self, root: str | os.PathLike[str], path: str) -> None:
        self._root = Path(root)
        self._path = path
        self._file = -1
        self._blocks: FileBlocks | None = None

    async def remote_read(self, maxLength: int) -> bytes:
        """Reads in a thread; what is read is one system call."""
        if self._file < 0:
            self._file = await trio.to_thread.run_sync(_open, self._root, self._path)
        return await trio.to_thread.run_sync(os.read, self._file, maxLength)

    async def read_block(self, digest: Blake3) -> Block | None:
        """Reads in a thread, one block ahead."""
        if self._blocks is None:
            self._blocks = FileBlocks(await trio.to_thread.run_sync(_open, self._root, self._path))
        return await self._blocks.read_block(digest)

    async def remote_close(self) -> None:
        """The worker has what it wanted."""
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the file."""
        await trio.lowlevel.checkpoint()
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
        if self._blocks is not None:
            self._blocks.close()


@final
class TreeReader(FileReaderImpl):
    """Gives `downloadDirectory` the directory `path` below `root`, as a tar stream made on the way."""

    def __init__(self, root: str | os.PathLike[str], path: str) -> None:
        self._root = Path(root)
        self._path = path
        self._pieces: AsyncGenerator[bytes] | None = None
        self._rest = b""

    async def remote_read(self, maxLength: int) -> bytes:
        """The next bytes of the tar stream."""
        if self._pieces is None:
            self._pieces = pack(await trio.to_thread.run_sync(_inside, self._root, self._path))
        if not self._rest:
            self._rest = await anext(self._pieces, b"")
        piece, self._rest = self._rest[:maxLength], self._rest[maxLength:]
        return piece

    async def remote_close(self) -> None:
        """The worker has what it wanted."""
        await self.aclose()

    async def aclose(self) -> None:
        """Stops packing."""
        await trio.lowlevel.checkpoint()
        if self._pieces is not None:
            await self._pieces.aclose()


def _inside(root: Path, path: str) -> Path:
    """`path` below `root`, with all links followed.

    Raises:
        LocalProtocolError: it leads out of `root`, or is `root` itself.
    """
    base = root.resolve(strict=True)
    found = (base / path).resolve()
    if base not in found.parents:
        raise LocalProtocolError(f"{path!r} leads out of {root}")
    return found


def _place(root: Path, path: str) -> Path:
    """Where to put a file or tree; its parents are made. A link that stands there is replaced, not followed."""
    parent, name = os.path.split(path.rstrip("/"))
    if name in {"", ".", ".."}:
        raise LocalProtocolError(f"{path!r} names no file below {root}")
    base = root.resolve(strict=True)
    directory = (base / parent).resolve()
    if directory != base and base not in directory.parents:
        raise LocalProtocolError(f"{path!r} leads out of {root}")
    directory.mkdir(parents=True, exist_ok=True)
    return directory / name


def _open(root: Path, path: str) -> int:
    found = _inside(root, path)
    descriptor = os.open(found, os.O_RDONLY | os.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(found))
    return descriptor
