"""A directory as a POSIX tar stream, made on the fly: no temporary file, constant memory.

The tree is walked in threads, some dozens of small files each time.
"""

from __future__ import annotations

import bz2
import os
import zlib
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from tailrace._core import TreePacker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PIECE_BYTES = 256 * 1024
"""Small, so that the far side soon has something to do; a thread's start (some 50 µs) is little beside packing it."""

Compression = Literal["gz", "bz2"]


async def pack(
    directory: str | os.PathLike[str], compress: Compression | None = None, skipped: list[bytes] | None = None
) -> AsyncGenerator[bytes]:
    """Yields the contents of `directory` (not its own entry) as a tar stream, in pieces.

    Links are packed as links, several names of one file as hard links; owners are left out; times are whole seconds.
    Sockets, devices and pipes are skipped, their paths appended to `skipped`. Close the generator when you leave early.

    Raises:
        OSError: of what cannot be read, or of a file that shrinks while it is read. What was yielded is no archive.
    """
    packer = await trio.to_thread.run_sync(_open, directory)
    compressor = _compressor(compress)
    try:
        while (piece := await trio.to_thread.run_sync(_next_piece, packer, compressor)) is not None:
            if piece:
                yield piece
        if compressor is not None:
            yield await trio.to_thread.run_sync(compressor.flush)
    finally:
        packer.close()
        if skipped is not None:
            skipped += packer.take_skipped()


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


def _open(directory: str | os.PathLike[str]) -> TreePacker:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return TreePacker(descriptor)
    finally:
        os.close(descriptor)


def _next_piece(packer: TreePacker, compressor: _Compressor | None) -> bytes | None:
    piece = packer.next_piece(PIECE_BYTES)
    return piece if piece is None or compressor is None else compressor.compress(piece)
