"""The master's side of a command: update calls as a journal, write calls as an upload, a download for read calls.

A call is answered when what it brought was taken; that is the brake of a worker which waits for answers. For those
that do not there is a second one: `unsettled` bytes are counted, and above a limit no more is read.
"""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, TypeAlias, final

import attrs

from tailrace._core import Blake3, Journal, chunk_records, close_record, unpack_record, utime_record
from tailrace.dialects.buildbot.calls import Complete, Item, Text, Update
from tailrace.dialects.buildbot.records import RecordAssembler, RecordQueue
from tailrace.errors import LocalProtocolError
from tailrace.messages import (
    StreamOpened,
    StreamProgress,
    StreamReadable,
    StreamReset,
    StreamStopped,
    StreamWritable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tailrace._core import Batch
    from tailrace.dialects.buildbot.calls import Element, Utime, Write
    from tailrace.messages import Channel, Event, Role, Value

Handle: TypeAlias = "int | str"
"""A call of the worker's that waits for its answer: the wire's own word for it."""

CLOSED = "closed"
"""What `link` takes for a reader that needs no more, and no error."""

# What a call costs while it waits for its answer, whatever it brought.
_CALL_BYTES = 128
# How many reads may wait. Nobody needs that many; a worker of ours has eight.
_READS_MAX = 1024
# How much may come behind `rc` while an upload is not in its place yet.
_HELD_BYTES_MAX = 1 << 20
_HELD_CALLS_MAX = 1024
# Room that is not worth a wake-up.
_LITTLE_BYTES = 64 << 10


class Host(Protocol):
    """What a stream needs of those that hold it."""

    unsettled: int
    """Bytes that have come and were not settled, of all streams."""
    survives_errors: bool
    """The worker may be told that a call of a transfer failed. Else it hears that all is well, until its `rc`."""

    def answer(self, handle: Handle, value: bytes | None, /) -> None:
        """Answer a call."""

    def refuse(self, handle: Handle, kind: str, text: str, /) -> None:
        """Answer a call: it failed."""

    def emit(self, event: Event, /) -> None:
        """Tell `link`."""

    def now(self) -> tuple[int, int]:
        """Wall and monotonic time in microseconds."""


@final
class _Answers:
    """Calls that are answered when what they brought is settled, in their order."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: deque[tuple[int, Handle]] = deque()

    def add(self, end: int, handle: Handle) -> None:
        self._waiting.append((end, handle))
        self._host.unsettled += _CALL_BYTES

    def settle(self, settled: int) -> None:
        while self._waiting and self._waiting[0][0] <= settled:
            self._host.answer(self._next(), None)

    def refuse(self, kind: str, text: str) -> None:
        while self._waiting:
            self._host.refuse(self._next(), kind, text)

    def _next(self) -> Handle:
        self._host.unsettled -= _CALL_BYTES
        return self._waiting.popleft()[1]


class _Received:
    """What both kinds of streams that a worker sends have in common: settling, answers, and being told once."""

    role: Role

    def __init__(self, host: Host, number: int, command: str) -> None:
        self.number, self.command = number, command
        self.opened = False
        self.over = False
        self.refusal: tuple[str, str] | None = None
        """Why `link` wants no more of it."""
        self._host = host
        self._answers = _Answers(host)
        self._settled = 0
        self._readable = False

    def settle(self, next: int, durable: int) -> None:  # noqa: A002 - as on the wire
        if self.over:
            return
        if next > self._settled:
            self._host.unsettled -= next - self._settled
            self._settled = next
        self._answers.settle(self._settled)

    def stop(self, reason: str) -> None:
        """`link` wants no more: what waits is refused, and what comes."""
        if self.over:
            return
        kind, colon, text = reason.partition(": ")
        self.refusal = (kind, text) if colon else ("Stopped", reason)
        self._answers.refuse(*self.refusal)
        self._close()

    def _close(self) -> None:
        self.over = True
        self._host.unsettled -= self._end() - self._settled

    def _end(self) -> int:
        raise NotImplementedError

    def _tell(self) -> None:
        """There is something to take."""
        if not self.opened:
            self.opened = True
            self._host.emit(StreamOpened(self.number, self.role, self.command, 0))
        if not self._readable and not self.over:
            self._readable = True
            self._host.emit(StreamReadable(self.number))


@final
class ReceivedJournal(_Received):
    """A command's updates and its completion, as a journal of our own."""

    role: Role = "journal"

    def __init__(self, host: Host, number: int, command: str) -> None:
        super().__init__(host, number, command)
        self.completed = False
        self._journal = Journal()
        # Channels that stand within a line.
        self._inside: set[Channel] = set()
        self._taken = 0

    def update(self, handle: Handle | None, elements: tuple[Element, ...]) -> None:
        """Take it in; the call is answered when it was settled. `None`: not the call's last elements."""
        if self.refusal is not None or self.completed:
            self._refuse(handle)
            return
        before = self._journal.end
        try:
            self._append(elements)
        except (LocalProtocolError, ValueError, TypeError, OverflowError) as error:
            if handle is not None:
                self._host.refuse(handle, type(error).__name__, str(error))
                handle = None
        self._grown(before, handle)

    def complete(self, handle: Handle, failure: tuple[str, str] | None) -> None:
        refused, self.completed = self.refusal is not None or self.completed, True
        if refused:
            self._refuse(handle)
            return
        before = self._journal.end
        self._journal.finish(None if failure is None else (failure[0][:200], failure[1]))
        self._grown(before, handle)

    def take(self, max_bytes: int) -> Batch | None:
        self._readable = False
        batch = self._journal.batch(self._taken, max_bytes)
        if batch is not None:
            self._taken = batch.end
        return batch

    @property
    def ended(self) -> bool:
        return self.completed and self._taken == self._journal.end

    def settle(self, next: int, durable: int) -> None:  # noqa: A002 - as on the wire
        super().settle(next, durable)
        if not self.over:
            self._journal.release(next)
            if self.completed and next >= self._journal.end:
                self._close()

    def _refuse(self, handle: Handle | None) -> None:
        if handle is not None:
            self._host.refuse(handle, *(self.refusal or ("LocalProtocolError", "the command is complete")))

    def _grown(self, before: int, handle: Handle | None) -> None:
        self._host.unsettled += self._journal.end - before
        if handle is not None:
            self._answers.add(self._journal.end, handle)
        self._answers.settle(self._settled)
        if self._journal.end > before:
            self._tell()

    def _append(self, elements: tuple[Element, ...]) -> None:
        wall_us, mono_us = self._host.now()
        values: dict[str, Value] = {}
        for element in elements:
            if isinstance(element, Item):
                values[element.key] = element.value
                continue
            if values:
                self._journal.update(values)
                values = {}
            text = element.text
            data = text.encode("utf-8", "replace") if isinstance(text, str) else text
            if data:
                for piece, began_us in self._timed(element, data, wall_us):
                    self._journal.append(element.channel, piece, began_us, mono_us, element.name)
        if values:
            self._journal.update(values)

    def _timed(self, text: Text, data: bytes, now_us: int) -> Iterator[tuple[bytes, int]]:
        """The bytes in pieces of lines that began at one time, which is that of a read of the worker's."""
        channel, times = (text.channel, text.name), text.times
        inside = channel in self._inside
        (self._inside.discard if data.endswith(b"\n") else self._inside.add)(channel)
        if not times:
            yield data, now_us
        elif times[0] == times[-1]:
            # They do not go back: all are the same.
            yield data, int(times[0] * 1e6)
        else:
            yield from _by_time(data, times, inside)

    def _end(self) -> int:
        return self._journal.end


def _by_time(data: bytes, times: Sequence[float], inside: bool) -> Iterator[tuple[bytes, int]]:
    """Lines that began at one time are one piece. `inside`: the first of them began before, and has no time here."""
    lines = _lines(data)
    first, at = (1 if inside else 0), 0
    for time, group in groupby(times):
        end = min(len(lines), at + sum(1 for _ in group) + (first if at == 0 else 0))
        if end > at:
            yield b"".join(lines[at:end]), int(time * 1e6)
        at = end
    if at < len(lines):
        # Buildbot's worker says fewer times than lines when it cuts long ones.
        yield b"".join(lines[at:]), int(times[-1] * 1e6)


def _lines(data: bytes) -> list[bytes]:
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


@final
class ReceivedUpload(_Received):
    """Write calls, as an upload. A worker says that the file is whole before it says whether it could read it (`rc`).

    So what ends it is answered at once and kept until `finish`. What `link` does not want is refused; but a worker that
    does not survive it is answered as if it were taken, and that the upload failed is said with its `rc`.
    """

    role: Role = "upload"

    def __init__(self, host: Host, number: int, command: str) -> None:
        super().__init__(host, number, command)
        self._queue = RecordQueue()
        self._digest = Blake3()
        self._utime: tuple[float, float] | None = None
        self._closes = self._unpacks = self._finished = False

    def write(self, handle: Handle, data: Write) -> None:
        if self._is_refused(handle):
            return
        self._digest.update(data.data)
        self._append(chunk_records(data.data))
        self._answers.add(self._queue.end, handle)
        self._answers.settle(self._settled)

    def close(self, handle: Handle) -> None:
        if not self._is_refused(handle):
            self._closes = True
            self._answers.add(self._queue.end, handle)
            self._answers.settle(self._settled)

    def utime(self, handle: Handle, times: Utime) -> None:
        if not self._is_refused(handle):
            if times.accessed is not None and times.modified is not None:
                self._utime = (times.accessed, times.modified)
            self._answers.add(self._queue.end, handle)
            self._answers.settle(self._settled)

    def unpack(self, handle: Handle) -> None:
        if not self._is_refused(handle):
            self._closes = self._unpacks = True
            self._answers.add(self._queue.end, handle)
            self._answers.settle(self._settled)

    def stop(self, reason: str) -> None:
        if not self.over and not self._host.survives_errors:
            self._answers.settle(self._queue.end)
        super().stop(reason)

    def finish(self, rc: Value) -> None:
        """The worker says how it went."""
        if self._finished or self.over:
            return
        self._finished = True
        if rc == 0 and self._closes:
            if self._utime is not None:
                self._append(utime_record(*self._utime))
            if self._unpacks:
                self._append(unpack_record())
            self._append(close_record(self._digest.length, self._digest.digest()))
            return
        why = f"the worker says rc {rc!r}" if self._closes else "the worker did not finish it"
        self._answers.settle(self._queue.end)
        self._close()
        if self.opened:
            self._host.emit(StreamReset(self.number, f"RemoteError: {why}"))

    def take(self, max_bytes: int) -> Batch | None:
        self._readable = False
        return self._queue.take(max_bytes)

    @property
    def ended(self) -> bool:
        return self._finished and self._queue.taken == self._queue.end

    def settle(self, next: int, durable: int) -> None:  # noqa: A002 - as on the wire
        super().settle(next, durable)
        if self._finished and durable >= self._queue.end and not self.over:
            self._close()

    def _append(self, records: bytes) -> None:
        self._queue.append(records)
        self._host.unsettled += len(records)
        self._tell()

    def _is_refused(self, handle: Handle) -> bool:
        if self.refusal is None and not self._finished:
            return False
        if self.refusal is not None and not self._host.survives_errors:
            self._host.answer(handle, None)
        else:
            self._host.refuse(handle, *(self.refusal or ("LocalProtocolError", "the upload is over")))
        return True

    def _end(self) -> int:
        return self._queue.end


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

    def __init__(self, host: Host, window_bytes: int) -> None:
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
class ReceivedCommand:
    """One command of ours at a worker, from its start call to its end."""

    def __init__(
        self, host: Host, journal: ReceivedJournal, upload: ReceivedUpload | None, download: SentDownload | None
    ) -> None:
        self._host = host
        self.journal = journal
        self.upload = upload
        self.download = download
        # What waits until the upload is in its place: `link` ends a transfer when its command's journal ends.
        self._held: deque[tuple[Handle | None, tuple[Element, ...] | Complete]] = deque()
        self._held_bytes = 0

    def update(self, handle: Handle, update: Update) -> None:
        if self._held:
            self._hold(handle, update.elements)
            return
        elements = update.elements
        for index, element in enumerate(elements):
            if isinstance(element, Item) and element.key == "rc" and self._waits(element.value):
                self.journal.update(None, elements[:index])
                self._hold(handle, elements[index:])
                return
        self.journal.update(handle, self._judged(elements))

    def complete(self, handle: Handle, complete: Complete) -> None:
        if self._held or self._waits(None):
            self._held.append((handle, complete))
        else:
            self.journal.complete(handle, complete.failure)

    def _hold(self, handle: Handle, elements: tuple[Element, ...]) -> None:
        """What comes behind `rc` is short: a line or two."""
        self._held_bytes += sum(len(e.text) if isinstance(e, Text) else 0 for e in elements)
        if self._held_bytes > _HELD_BYTES_MAX or len(self._held) >= _HELD_CALLS_MAX:
            self._host.refuse(handle, "LimitExceeded", "too much comes behind rc")
        else:
            self._held.append((handle, elements))

    def go_on(self) -> None:
        """The upload may be over."""
        if self.upload is None or not self.upload.over:
            return
        while self._held:
            handle, what = self._held.popleft()
            if isinstance(what, Complete):
                assert handle is not None
                self.journal.complete(handle, what.failure)
            else:
                self.journal.update(handle, self._judged(what))

    def _waits(self, rc: Value) -> bool:
        """Have the upload ended. Whether that takes time."""
        if self.upload is None:
            return False
        self.upload.finish(rc)
        return not self.upload.over

    def _judged(self, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        """The worker thinks that all went well; that is for the master's file to say."""
        transfer = self.upload or self.download
        if transfer is None or transfer.refusal is None or Item("rc", 0) not in elements:
            return elements
        why = ": ".join(filter(None, transfer.refusal))
        said = Text("stderr", None, f"the master gave the transfer up: {why}\n")
        return (said, *(Item("rc", 1) if element == Item("rc", 0) else element for element in elements))
