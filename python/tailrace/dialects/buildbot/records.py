"""Transfer records on their way between `link` and calls: a queue to take from, and pieces put together again."""

from __future__ import annotations

from collections import deque
from typing import Final, final

from tailrace._core import Batch
from tailrace.errors import LocalProtocolError

PREFIX_BYTES: Final = 4


def record_bytes(data: bytes | bytearray | memoryview, at: int) -> int | None:
    """How long the record at `at` is, its prefix included; `None`: the prefix is not whole."""
    prefix = data[at : at + PREFIX_BYTES]
    return PREFIX_BYTES + int.from_bytes(prefix, "big") if len(prefix) == PREFIX_BYTES else None


@final
class RecordQueue:
    """Whole records, from which batches are taken. Each entry is taken whole."""

    def __init__(self) -> None:
        self.end = 0
        """Where what was appended ends."""
        self.taken = 0
        """Where what was taken ends."""
        self._entries: deque[bytes] = deque()

    def append(self, records: bytes) -> None:
        """At the end. They are whole."""
        if records:
            self._entries.append(records)
            self.end += len(records)

    def take(self, max_bytes: int) -> Batch | None:
        """The next entries, at least one and else at most so much; `None`: there is nothing."""
        taken: list[bytes] = []
        count = 0
        while self._entries and (not taken or count + len(self._entries[0]) <= max_bytes):
            taken.append(self._entries.popleft())
            count += len(taken[-1])
        if not taken:
            return None
        start, self.taken = self.taken, self.taken + count
        return Batch.parse(b"".join(taken) if len(taken) > 1 else taken[0], start)


@final
class RecordAssembler:
    """Records that are written in parts."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._start = 0

    def __len__(self) -> int:
        """How much waits for the rest of its record."""
        return len(self._parts)

    def add(self, data: bytes | memoryview) -> Batch | None:
        """The records that are whole now."""
        self._parts += data
        end = 0
        while (length := record_bytes(self._parts, end)) is not None and end + length <= len(self._parts):
            end += length
        if not end:
            return None
        batch = Batch.parse(bytes(memoryview(self._parts)[:end]), self._start)
        del self._parts[:end]
        self._start += end
        return batch

    def check_whole(self) -> None:
        """Raise if a record is not."""
        if self._parts:
            raise LocalProtocolError("the stream ends within a record")
