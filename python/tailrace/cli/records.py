"""A stream of raw records, cut wherever the network cut it, back into whole records."""

from __future__ import annotations

import struct
from typing import final

from tailrace._core import Batch

from .failure import Failure

_LENGTH = struct.Struct(">I")
_RECORD_BYTES_MAX = 16 * 1024 * 1024  # PROTOCOL.md section 6


@final
class Framer:
    """Gives each record once, in a `Batch`, as soon as it is whole. Keeps less than one record."""

    def __init__(self, offset: int = 0) -> None:
        """`offset`: where in its journal the stream begins."""
        self._rest = b""
        self._offset = offset

    def receive_data(self, data: bytes) -> Batch | None:
        """The records that are whole now, or None."""
        data = self._rest + data if self._rest else data
        end = _whole(data)
        self._rest = data[end:]
        if end == 0:
            return None
        batch = Batch.parse(memoryview(data)[:end], self._offset)
        self._offset += end
        return batch

    def receive_eof(self) -> None:
        if self._rest:
            raise Failure("the log broke off in the middle of a record", "is the master still there? try again")


def _whole(data: bytes) -> int:
    """How many bytes at the beginning are whole records."""
    at = 0
    while at + 4 <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        if length > _RECORD_BYTES_MAX:
            raise Failure(f"the master sent a record of {length} bytes", "is it a master of another version?")
        if at + 4 + length > len(data):
            break
        at += 4 + length
    return at
