"""The master's side of a command: update calls as a journal, write calls as an upload, a download for read calls.

A call is answered when what it brought was taken; that is the brake of a worker which waits for answers. For those
that do not there is a second one: `unsettled` bytes are counted, and above a limit no more is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeAlias, final

from tailrace._core import Blake3, Journal, chunk_records, close_record, unpack_record, utime_record
from tailrace.dialects.buildbot.calls import Item, Text
from tailrace.dialects.buildbot.records import RecordQueue
from tailrace.errors import LocalProtocolError
from tailrace.messages import (
    StreamOpened,
    StreamReadable,
    StreamReset,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tailrace._core import BananaOutput, Batch
    from tailrace.dialects.buildbot.calls import Element, Utime, Write
    from tailrace.messages import Event, Role, Value

Handle: TypeAlias = "int | str"
"""A call of the worker's that waits for its answer: the wire's own word for it."""

SAME_TIME_S = 0.005
"""Lines that began within it have one time: a worker reads its programs' output in no smaller steps when there is much,
and each step is a record."""

# What a call costs while it waits for its answer, whatever it brought.
_CALL_BYTES = 128


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

    def output(self, handle: Handle, output: BananaOutput) -> None:
        """Take in nothing but text; the call is answered when it was settled."""
        if self.refusal is not None or self.completed:
            self._refuse(handle)
            return
        before = self._journal.end
        self._journal.gather(output, *self._host.now())
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
                for piece, began_us in _timed(self._journal, element, data, wall_us):
                    self._journal.append(element.channel, piece, began_us, mono_us, element.name)
        if values:
            self._journal.update(values)

    def _end(self) -> int:
        return self._journal.end


def _timed(
    journal: Journal, text: Text, data: bytes | memoryview, now_us: int
) -> Iterator[tuple[bytes | memoryview, int]]:
    """The bytes in pieces of lines that began at about one time."""
    times = text.times
    if not times:
        yield data, now_us
    elif 0 <= times[-1] - times[0] <= SAME_TIME_S:
        # They do not go back: all are in between.
        yield data, int(times[0] * 1e6)
    else:
        yield from _by_time(bytes(data), times, journal.is_inside_line(text.channel, text.name))


def _by_time(data: bytes, times: Sequence[float], inside: bool) -> Iterator[tuple[bytes, int]]:
    """Lines of about one time are one piece. `inside`: the first of them began before, and has no time here."""
    start, line, line_bytes = 0, 0, len(data) // len(times) + 1
    while line < len(times) and start < len(data):
        # Times do not go back; where a clock did, lines have the time of those before them.
        last = max(line + 1, bisect_right(times, times[line] + SAME_TIME_S, line))
        # Buildbot's worker says fewer times than lines when it cuts long ones: the rest has the last time.
        end = len(data) if last == len(times) else _after(data, start, last - line + (inside and line == 0), line_bytes)
        if end > start:
            yield data[start:end], int(times[line] * 1e6)
        start, line = end, last


def _after(data: bytes, start: int, lines: int, line_bytes: int) -> int:
    """Where so many lines end, of about so many bytes. Counting what lies between is far faster than finding each."""
    low, window = start, lines * line_bytes
    while (seen := data.count(b"\n", low, low + window)) < lines and low + window < len(data):
        low, lines, window = low + window, lines - seen, 2 * window
    high = min(len(data), low + window)
    while lines > 8 and low < high - 1:
        middle = (low + high) // 2
        seen = data.count(b"\n", low, middle)
        if seen < lines:
            low, lines = middle, lines - seen
        else:
            high = middle
    for _ in range(lines):
        low = data.find(b"\n", low) + 1 or len(data)
    return low


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
