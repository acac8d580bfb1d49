"""A tar stream as a directory, confined to it, which appears when the stream is complete and harmless.

Theory of operation. The archive is unpacked into a private directory beside the target. Every step of every path is
opened by the descriptor of the directory above it and never through a link, so that neither an archive nor somebody who
exchanges directories for links meanwhile leads a write elsewhere. When the end was read, all links are followed on
paper: where one could lead out of the root, the archive is refused. Then the disk is synced once, and the tree is
moved: as a whole where there is no target yet, else file by file, after all of it was seen to fit. While more arrives
the disk is already at work, so that the sync at the end is short.

The work is done in threads, about a megabyte of the stream each time.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING, Self, final

import trio

from tailrace._core import TarDecoder, TarEntry
from tailrace.errors import LimitExceeded, UnsafeArchive
from tailrace.files.ahead import SyncAhead
from tailrace.files.atomic import temporary_name, write_all
from tailrace.files.confined import Directories, components, symlink_leaves, text
from tailrace.files.inflate import Inflater
from tailrace.files.merge import merge_tree, sync_filesystem

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from tailrace.files.tree import Compression

BATCH_BYTES = 1024 * 1024
# Far beyond what a file system stores, and what a C `time_t` in nanoseconds holds.
_MTIME_NS_MAX = 2**62
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
        self._refused = False
        self._bytes_left = bytes_max
        self._decoder = TarDecoder()
        self._gathered = bytearray()
        self._place: _Place | None = None
        self._tree: _Tree | None = None
        self._ahead = SyncAhead(self._sync)

    async def __aenter__(self) -> Self:
        await trio.to_thread.run_sync(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._drop)

    async def write(self, data: Buffer) -> None:
        """Takes the next bytes of the stream. Cancelled: they were taken or not; the target is as it was anyway."""
        self._gathered += data
        if len(self._gathered) >= BATCH_BYTES:
            await trio.to_thread.run_sync(self._flush)
        else:
            await trio.lowlevel.checkpoint()

    async def commit(self) -> None:
        """Checks that the archive is complete, and moves it in, durably. Called once, last.

        Cancelled before it began: nothing changed. Once begun it is carried out.
        """
        await trio.to_thread.run_sync(self._commit)

    def _open(self) -> None:
        self._place = _Place(self._path)
        self._tree = _Tree(self._place.tree)

    def _flush(self) -> None:
        if self._refused:
            raise UnsafeArchive("the archive was refused before")
        data, self._gathered = self._gathered, bytearray()
        self._ahead.wrote(len(data))
        try:
            for piece in self._inflater.inflate(data):
                self._feed(piece)
        except BaseException:
            self._refused = True
            raise

    def _sync(self) -> None:
        assert self._place is not None
        sync_filesystem(self._place.tree)

    def _feed(self, data: Buffer) -> None:
        assert self._tree is not None
        self._decoder.receive_data(data)
        while (event := self._decoder.next_event()) is not None:
            if isinstance(event, TarEntry):
                self._spend(event.size)
                self._tree.entry(event)
            else:
                self._tree.data(event)

    def _spend(self, size: int) -> None:
        if self._bytes_left is not None:
            self._bytes_left -= size
            if self._bytes_left < 0:
                raise LimitExceeded("the archive holds more bytes than it may")

    def _commit(self) -> None:
        assert self._place is not None
        assert self._tree is not None
        self._flush()
        self._inflater.check_whole()
        self._decoder.receive_eof()
        self._decoder.next_event()
        self._tree.finish()
        self._ahead.finish()
        self._place.move_in()

    def _drop(self) -> None:
        self._ahead.stop()
        if self._tree is not None:
            self._tree.close()
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


@final
class _Tree:
    """Entries become files below `root`, a directory that is new and ours."""

    def __init__(self, root: int) -> None:
        self._directories = Directories(root)
        self._symlinks: dict[tuple[bytes, ...], bytes] = {}
        self._file = -1
        self._entry: TarEntry | None = None
        self._missing = 0

    def entry(self, entry: TarEntry) -> None:
        self._check_whole()
        path = components(entry.path, "path")
        if not path:
            if entry.kind != "directory":
                raise UnsafeArchive(f"a {entry.kind} in the root's place")
            return
        try:
            self._make(entry, path)
        except FileExistsError:
            raise UnsafeArchive(f"{text(entry.path)} comes twice in the archive") from None

    def data(self, data: memoryview) -> None:
        write_all(self._file, data)
        self._missing -= len(data)
        if not self._missing:
            self._end_file()

    def finish(self) -> None:
        self._check_whole()
        for path, target in self._symlinks.items():
            if symlink_leaves(path[:-1], target, self._symlinks):
                raise UnsafeArchive(f"the link {text(b'/'.join(path))} leads out of the archive, to {text(target)}")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._directories.close()

    def _make(self, entry: TarEntry, path: tuple[bytes, ...]) -> None:
        match entry.kind:
            case "directory":
                os.fchmod(self._directories.open(path), entry.mode & 0o777 | stat.S_IRWXU)
            case "file":
                self._file = os.open(path[-1], _CREATE_FILE, 0o600, dir_fd=self._directories.open(path[:-1]))
                self._entry, self._missing = entry, entry.size
                if not entry.size:
                    self._end_file()
            case "symlink":
                self._symlink(entry, path)
            case "hardlink":
                self._hardlink(entry, path)
            case _:
                raise UnsafeArchive(f"{text(entry.path)} is a {entry.kind}")

    def _symlink(self, entry: TarEntry, path: tuple[bytes, ...]) -> None:
        if not entry.target or entry.target.startswith(b"/"):
            raise UnsafeArchive(f"the link {text(entry.path)} is empty or absolute, to {text(entry.target)!r}")
        os.symlink(entry.target, path[-1], dir_fd=self._directories.open(path[:-1]))
        self._symlinks[path] = entry.target

    def _hardlink(self, entry: TarEntry, path: tuple[bytes, ...]) -> None:
        source = components(entry.target, "link")
        refused = UnsafeArchive(f"the hard link {text(entry.path)} is to {text(entry.target)}, no file before it")
        if not source:
            raise refused
        try:
            above = os.dup(self._directories.find(source[:-1]))
        except FileNotFoundError:
            raise refused from None
        try:
            if not stat.S_ISREG(os.stat(source[-1], dir_fd=above, follow_symlinks=False).st_mode):
                raise refused
            parent = self._directories.open(path[:-1])
            os.link(source[-1], path[-1], src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise refused from None
        finally:
            os.close(above)

    def _end_file(self) -> None:
        assert self._entry is not None
        mtime = max(-_MTIME_NS_MAX, min(self._entry.mtime_ns, _MTIME_NS_MAX))
        descriptor, self._file = self._file, -1
        try:
            os.fchmod(descriptor, self._entry.mode & 0o777)
            os.utime(descriptor, ns=(mtime, mtime))
        finally:
            os.close(descriptor)

    def _check_whole(self) -> None:
        if self._missing:
            raise UnsafeArchive("the archive is cut off")
