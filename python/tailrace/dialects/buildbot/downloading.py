"""A download, at both ends: the master's, which answers what is read, and the worker's, which reads ahead."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

import attrs

from tailrace._core import Blake3, chunk_records, close_record
from tailrace.dialects.buildbot.calls import CloseReader, Read
from tailrace.dialects.buildbot.records import RecordAssembler, RecordQueue
from tailrace.errors import LocalProtocolError
from tailrace.messages import StreamProgress, StreamReadable, StreamReset, StreamStopped, StreamWritable

if TYPE_CHECKING:
    from tailrace._core import Batch
    from tailrace.dialects.buildbot import receiving, sending
    from tailrace.dialects.buildbot.receiving import Handle
    from tailrace.messages import Value

CLOSED = "closed"
"""What `link` takes for a reader that needs no more, and no error."""

# How many reads may wait. Nobody needs that many; a worker of ours has eight.
_READS_MAX = 1024
# Room that is not worth a wake-up.
_LITTLE_BYTES = 64 << 10


@final
@attrs.frozen
class _Read:
    handle: Handle
    length: int


@final
class SentDownload:
    """What the worker reads. Read calls may come before `link` has opened it.

    For a worker that does not survive errors one that fails just ends; its `rc` says that it failed.
    """

    def __init__(self, host: receiving.Host, window_bytes: int) -> None:
        self.number: int | None = None
        self.sent = 0
        self.over = False
        self._host = host
        self._window_bytes = window_bytes
        self._assembler = RecordAssembler()
        self._data: deque[memoryview] = deque()
        self._bytes = 0
        self._reads: deque[_Read] = deque()
        self._whole = self._ended = self._blocked = self._closed = False
        self.refusal: tuple[str, str] | None = None
        """Why `link` gives no more of it."""

    # link's

    def open(self, number: int) -> None:
        self.number = number
        if self._closed:
            self._stopped()

    def room(self) -> int:
        room = 0 if self.over else max(0, self._window_bytes - self._bytes - len(self._assembler))
        self._blocked = self._blocked or not room
        return room

    def write(self, data: bytes | memoryview) -> None:
        if self.over or self._ended:
            raise LocalProtocolError("the download is over")
        self.sent += len(data)
        batch = self._assembler.add(data)
        if batch is not None:
            for chunk in batch.chunks():
                self._data.append(chunk)
                self._bytes += len(chunk)
            self._whole = self._whole or batch.close() is not None
            self._feed()

    def end(self) -> None:
        self._assembler.check_whole()
        self._ended = self._whole = True
        self._feed()

    def reset(self, reason: str) -> None:
        kind, colon, text = reason.partition(": ")
        self.over = True
        self.refusal = (kind, text) if colon else ("Cancelled", reason)
        self._data.clear()
        self._bytes = 0
        self._feed()

    # the worker's

    def read(self, handle: Handle, length: int) -> None:
        if len(self._reads) >= _READS_MAX:
            self._host.refuse(handle, "LimitExceeded", f"{_READS_MAX} reads wait already")
            return
        self._reads.append(_Read(handle, length))
        self._feed()

    def close(self, handle: Handle) -> None:
        """The worker needs no more."""
        self._closed = True
        self._host.answer(handle, None)
        if self.over or self.number is None:
            return
        if self._ended and not self._data:
            self.over = True
            self._host.emit(StreamProgress(self.number, self.sent, self.sent, True))
        else:
            self._stopped()

    def abandon(self) -> None:
        """The command is over."""
        self.refusal = self.refusal or ("LocalProtocolError", "the command is over")
        self._feed()

    def _stopped(self) -> None:
        assert self.number is not None
        self.over = True
        self._data.clear()
        self._bytes = 0
        self._host.emit(StreamStopped(self.number, CLOSED))

    def _feed(self) -> None:
        while self._reads:
            if self.refusal is not None and self._host.survives_errors:
                self._host.refuse(self._reads.popleft().handle, *self.refusal)
            elif self._data:
                read = self._reads.popleft()
                self._host.answer(read.handle, self._cut(read.length))
            elif self._whole or self._closed or self.refusal is not None:
                self._host.answer(self._reads.popleft().handle, b"")
            else:
                break
        if self._blocked and self.number is not None and not self.over:
            free = self._window_bytes - self._bytes - len(self._assembler)
            if free >= min(_LITTLE_BYTES, self._window_bytes // 2):
                self._blocked = False
                self._host.emit(StreamWritable(self.number))

    def _cut(self, length: int) -> bytes:
        """As much as there is, up to `length`."""
        parts: list[memoryview] = []
        left = max(1, length)
        while self._data and left:
            piece = self._data.popleft()
            if len(piece) > left:
                self._data.appendleft(piece[left:])
                piece = piece[:left]
            parts.append(piece)
            left -= len(piece)
        data = b"".join(parts)
        self._bytes -= len(data)
        return data


@final
class ReceivedDownload:
    """A download, by `Read` and `CloseReader`. Reads ahead of whoever takes it."""

    def __init__(self, host: sending.Host, number: int, command: str, style: sending.Style) -> None:
        self.number, self.command = number, command
        self.over = False
        self._host, self._style = host, style
        self._queue = RecordQueue()
        self._digest = Blake3()
        self._reads: deque[_Reading] = deque()
        self._settled = 0
        self._readable = self._complete = False

    def read_ahead(self) -> None:
        """Ask for what there is room for."""
        style = self._style
        while (
            not self.over
            and not self._complete
            and len(self._reads) < style.reads_max
            and len(self._reads) * style.block_bytes + self._queue.end - self._settled < style.window_bytes
        ):
            self._reads.append(_Reading(self._host.send(Read(self.command, style.block_bytes), self)))

    def take(self, max_bytes: int) -> Batch | None:
        self._readable = False
        return self._queue.take(max_bytes)

    @property
    def ended(self) -> bool:
        return self._complete and self._queue.taken == self._queue.end

    def settle(self, next: int, durable: int) -> None:  # noqa: A002 - as on the wire
        self._settled = max(self._settled, next)
        if self._complete and durable >= self._queue.end:
            self.stop("")
        else:
            self.read_ahead()

    def stop(self, reason: str) -> None:
        """No more of it is wanted."""
        if not self.over:
            self.over = True
            self._host.send(CloseReader(self.command), self)

    def answered(self, handle: int, value: Value) -> None:
        for read in self._reads:
            if read.handle == handle:
                read.data, read.answered = value, True
                break
        while self._reads and self._reads[0].answered and not self._complete:
            self._take_in(self._reads.popleft().data)
        if not self.over:
            self.read_ahead()

    def failed(self, handle: int, kind: str, text: str) -> None:
        if not self.over and not self._complete:
            self.over = True
            self._host.emit(StreamReset(self.number, f"{kind}: {text}"))
            self._host.send(CloseReader(self.command), self)

    def _take_in(self, data: Value) -> None:
        if isinstance(data, bytes) and data:
            self._digest.update(data)
            self._queue.append(chunk_records(data))
        elif isinstance(data, str) and data:
            self.failed(0, "RemoteProtocolError", "the master sends text for a file's bytes")
            return
        else:
            if data is None and not self._digest.length:
                self._host.note(
                    self.command,
                    "the master sent nothing for this file: "
                    "Buildbot up to 4.3 loses every download on this wire, and an empty file is made of it\n",
                )
            self._complete = True
            self._queue.append(close_record(self._digest.length, self._digest.digest()))
        if not self.over and not self._readable:
            self._readable = True
            self._host.emit(StreamReadable(self.number))


@final
@attrs.define
class _Reading:
    handle: int
    data: Value = None
    answered: bool = False
