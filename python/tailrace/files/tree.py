"""A directory as a POSIX tar stream, made on the fly: no temporary file, constant memory.

The tree is walked by a generator that runs in threads, a megabyte of the stream each time: thousands of small files
cost a few thread starts. It is walked by directory descriptors, so that nobody who exchanges a directory for a link
meanwhile makes it leave the tree.
"""

from __future__ import annotations

import bz2
import os
import stat
import zlib
from typing import TYPE_CHECKING, Literal, Protocol, final

import trio

from tailrace._core import TarEncoder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

PIECE_BYTES = 1024 * 1024

GROWN_BYTES = 64 * 1024
"""How much more of a small file is taken than it had when it was opened: some say that they have none."""

Compression = Literal["gz", "bz2"]

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe that took a file's place would block the open.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SECOND_NS = 1_000_000_000


async def pack(
    directory: str | os.PathLike[str], compress: Compression | None = None, skipped: list[bytes] | None = None
) -> AsyncGenerator[bytes]:
    """Yields the contents of `directory` (not its own entry) as a tar stream, in pieces of about 1 MiB.

    Links are packed as links, several names of one file as hard links; owners are left out; times are whole seconds.
    Sockets, devices and pipes are skipped, their paths appended to `skipped`. Close the generator when you leave early.

    Raises:
        OSError: of what cannot be read, or of a file that shrinks while it is read. What was yielded is no archive.
    """
    walk = _Walk(directory, [] if skipped is None else skipped)
    packer = _compressor(compress)
    try:
        while True:
            piece = await trio.to_thread.run_sync(_next_piece, walk, packer)
            if piece is None:
                return
            if piece:
                yield piece
    finally:
        walk.close()


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def _compressor(compress: Compression | None) -> _Compressor | None:
    match compress:
        case None:
            return None
        case "gz":
            return zlib.compressobj(wbits=31)
        case "bz2":
            return bz2.BZ2Compressor()


def _next_piece(walk: _Walk, packer: _Compressor | None) -> bytes | None:
    piece = walk.next_piece()
    if packer is None or walk.flushed:
        return piece
    if piece is None:
        walk.flushed = True
        return packer.flush()
    return packer.compress(piece)


@final
class _Directory:
    """One level of the walk: an open directory and the names in it that are still to be visited, files marked."""

    def __init__(self, descriptor: int, path: bytes) -> None:
        self.descriptor = descriptor
        self.path = path
        try:
            with os.scandir(descriptor) as entries:
                found = [(os.fsencode(entry.name), entry.is_file(follow_symlinks=False)) for entry in entries]
            self.names = sorted(found, reverse=True)
        except OSError:
            os.close(descriptor)
            raise


@final
class _Walk:
    def __init__(self, directory: str | os.PathLike[str], skipped: list[bytes]) -> None:
        self.flushed = False
        self._root = directory
        self._skipped = skipped
        self._encoder = TarEncoder()
        self._levels: list[_Directory] = []
        self._linked: dict[tuple[int, int], bytes] = {}
        self._steps = self._run()

    def next_piece(self) -> bytes | None:
        """The next piece of the stream; None behind its end."""
        if next(self._steps, None) is None and not len(self._encoder):
            return None
        return self._encoder.take()

    def close(self) -> None:
        self._steps.close()
        while self._levels:
            os.close(self._levels.pop().descriptor)

    def _run(self) -> Generator[bool]:
        """Fills the encoder. Yields whenever there is a piece in it."""
        self._levels.append(_Directory(os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), b""))
        while self._levels:
            level = self._levels[-1]
            if not level.names:
                os.close(self._levels.pop().descriptor)
                continue
            name, is_file = level.names.pop()
            # What a file is, is asked once more when it is open.
            visit = self._file if is_file else self._visit
            yield from visit(level.descriptor, name, level.path + name)
            if len(self._encoder) >= PIECE_BYTES:
                yield True
        self._encoder.finish()

    def _visit(self, parent: int, name: bytes, path: bytes) -> Iterator[bool]:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            yield from self._file(parent, name, path)
        elif stat.S_ISDIR(found.st_mode):
            level = _Directory(os.open(name, _OPEN_DIRECTORY, dir_fd=parent), path + b"/")
            self._levels.append(level)
            self._encoder.entry(path, "directory", stat.S_IMODE(found.st_mode), _mtime(found))
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(name, dir_fd=parent)
            self._encoder.entry(path, "symlink", 0o777, _mtime(found), 0, target)
        else:
            self._skipped.append(path)

    def _file(self, parent: int, name: bytes, path: bytes) -> Iterator[bool]:
        descriptor = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                self._skipped.append(path)
                return
            if found.st_nlink > 1:
                first = self._linked.setdefault((found.st_dev, found.st_ino), path)
                if first != path:
                    self._encoder.entry(path, "hardlink", stat.S_IMODE(found.st_mode), _mtime(found), 0, first)
                    return
            yield from self._data(descriptor, path, found)
        finally:
            os.close(descriptor)

    def _data(self, descriptor: int, path: bytes, found: os.stat_result) -> Iterator[bool]:
        size = found.st_size
        if size < PIECE_BYTES:
            # Read before its size is said, so that a small file may change at any time.
            # Not much more than there is: a megabyte for each of them costs more than the file.
            data = os.read(descriptor, size + GROWN_BYTES)
            self._encoder.entry(path, "file", stat.S_IMODE(found.st_mode), _mtime(found), len(data))
            self._encoder.data(data)
            return
        self._encoder.entry(path, "file", stat.S_IMODE(found.st_mode), _mtime(found), size)
        while missing := self._encoder.missing:
            data = os.read(descriptor, min(missing, PIECE_BYTES))
            if not data:
                raise OSError(f"{os.fsdecode(path)} shrank while it was packed")
            self._encoder.data(data)
            yield True


def _mtime(found: os.stat_result) -> int:
    return found.st_mtime_ns // _SECOND_NS * _SECOND_NS
