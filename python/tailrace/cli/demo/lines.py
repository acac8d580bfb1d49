"""A channel's bytes as lines to look at: only a view; what is kept are the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN_BYTES = 400
"""No more of a line is ever shown; the rest is only counted."""


@attrs.frozen
class Line:
    """A line that has ended: the beginning of what is left to see of it, and how many bytes that is in all."""

    text: str
    bytes: int


@final
class LineView:
    """Pieces in, whole lines out. What follows a carriage return overwrites what stood there, as on a terminal."""

    def __init__(self) -> None:
        self._head = b""
        self._bytes = 0
        self._returned = False

    @property
    def partial(self) -> str:
        """The line that has not ended."""
        return self._head.decode(errors="replace")

    def receive_data(self, data: bytes) -> Iterator[Line]:
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._extend(piece)
            yield self._end()
        self._extend(rest)

    def receive_eof(self) -> Iterator[Line]:
        if self._bytes:
            yield self._end()

    def _extend(self, piece: bytes) -> None:
        text, *overwriting = piece.split(b"\r")
        self._put(text)
        for text in overwriting:
            self._returned = True
            self._put(text)

    def _put(self, text: bytes) -> None:
        if text and self._returned:
            self._head, self._bytes, self._returned = b"", 0, False
        self._head = (self._head + text)[:_SHOWN_BYTES]
        self._bytes += len(text)

    def _end(self) -> Line:
        line = Line(self._head.decode(errors="replace"), self._bytes)
        self._head, self._bytes, self._returned = b"", 0, False
        return line
