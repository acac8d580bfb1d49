"""Compressed streams, piece by piece, without a piece that is large beyond reason."""

from __future__ import annotations

import bz2
import zlib
from typing import TYPE_CHECKING, final

from tailrace.errors import UnsafeArchive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from tailrace.files.tree import Compression

PIECE_BYTES = 4 * 1024 * 1024
"""What one step gives at most: a bomb does not burst in memory."""


@final
class Inflater:
    """Undoes the compression of one stream; `None` hands the bytes on."""

    def __init__(self, compress: Compression | None) -> None:
        self._stream = _Gzip() if compress == "gz" else _Bzip2() if compress == "bz2" else None

    def inflate(self, data: Buffer) -> Iterator[Buffer]:
        """Takes `data` and yields what comes out. UnsafeArchive: it is not so compressed."""
        if self._stream is None:
            yield data
        else:
            try:
                yield from self._stream.inflate(data)
            except (zlib.error, OSError, EOFError) as error:
                raise UnsafeArchive(f"the stream is not compressed as it should be: {error}") from error

    def check_whole(self) -> None:
        """Raises UnsafeArchive if the stream has not ended."""
        if self._stream is not None and not self._stream.eof:
            raise UnsafeArchive("the compressed stream is cut off")


@final
class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def inflate(self, data: Buffer) -> Iterator[bytes]:
        while len(memoryview(data)):
            if self._inner.eof:
                raise zlib.error("bytes behind its end")
            piece = self._inner.decompress(data, PIECE_BYTES)
            data = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            yield piece


@final
class _Bzip2:
    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def inflate(self, data: Buffer) -> Iterator[bytes]:
        if len(memoryview(data)):
            yield self._inner.decompress(data, PIECE_BYTES)
        while not self._inner.eof and not self._inner.needs_input:
            yield self._inner.decompress(b"", PIECE_BYTES)
        if self._inner.unused_data:
            raise EOFError("bytes behind its end")
