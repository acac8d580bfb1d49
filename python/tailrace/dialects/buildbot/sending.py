"""The worker's side of a command: its journal as update calls, its upload as write calls, its download by read calls.

Several calls are on their way at once, bounded by bytes and by number; what waits meanwhile becomes fewer and larger
calls. Buildbot's masters answer at once, ours when they have taken it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, final

import attrs

from tailrace._core import Batch, Journal
from tailrace.dialects.buildbot.calls import (
    CloseWriter,
    Complete,
    Item,
    Text,
    Unpack,
    Update,
    Utime,
    Write,
)
from tailrace.dialects.buildbot.lines import LineMaker, LineStyle
from tailrace.dialects.buildbot.records import PREFIX_BYTES, RecordAssembler, record_bytes
from tailrace.errors import LocalProtocolError
from tailrace.messages import StreamProgress, StreamStopped, StreamWritable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailrace.dialects.buildbot.calls import Call, Element
    from tailrace.messages import Channel, Event, Value

# Texts are joined up to this: what comes in larger pieces gains nothing.
JOINED_CHARS_MAX = 64 << 10

_LOGS = frozenset({1, 2, 3, 4})
_UPDATE, _GAP, _COMPLETE = 0x10, 0x20, 0x30


@final
@attrs.frozen(kw_only=True)
class Style:
    """What a wire and its master take."""

    lines: LineStyle = attrs.field(factory=LineStyle)
    encoding: str = "utf-8"
    """Of the worker's output."""

    text_chars_max: int = 1 << 20
    """One text is cut at a line's end above that, if it can be."""

    text_chars_limit: int | None = None
    """What one text may never exceed."""

    block_bytes: int = 256 << 10
    """One `Write`, and what one `Read` asks for."""

    window_bytes: int = 4 << 20
    """What may be unanswered of one stream."""

    update_bytes: int = 512 << 10
    """How much of a journal goes into one update, or one record if that is more."""

    updates_max: int = 4
    """How many updates of one command may be unanswered: what gathers meanwhile goes in one call."""

    reads_max: int = 8
    """How many reads of one download may be unanswered."""


class Sender(Protocol):
    """What calls the master."""

    def answered(self, handle: int, value: Value, /) -> None:
        """The master returned."""

    def failed(self, handle: int, kind: str, text: str, /) -> None:
        """The master raised."""


class Host(Protocol):
    """What a stream needs of those that hold it."""

    def send(self, call: Call, sender: Sender, /) -> int:
        """Call the master; the handle of its answer."""

    def emit(self, event: Event, /) -> None:
        """Tell `link`."""

    def note(self, command: str, text: str, /) -> None:
        """Say something in the command's header."""

    def completing(self, command: str, /) -> None:
        """`Complete` is about to be sent."""


@final
@attrs.define
class _Unanswered:
    handle: int
    end: int
    bytes: int
    answered: bool = False


@final
class _InFlight:
    """Calls whose answers may come in any order, while what is said of them goes in theirs."""

    def __init__(self) -> None:
        self.bytes = 0
        self._calls: deque[_Unanswered] = deque()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, handle: int, end: int, count: int) -> None:
        self._calls.append(_Unanswered(handle, end, count))
        self.bytes += count

    def reach(self, end: int) -> None:
        """The last call stands for everything up to `end`."""
        self._calls[-1].end = end

    def answered(self, handle: int) -> int | None:
        """Up to where everything is answered, if that moved."""
        for call in self._calls:
            if call.handle == handle:
                call.answered = True
                break
        end = None
        while self._calls and self._calls[0].answered:
            call = self._calls.popleft()
            self.bytes -= call.bytes
            end = call.end
        return end


@final
class SentJournal:
    """A journal, as `Update` and `Complete`."""

    def __init__(self, host: Host, number: int, command: str, style: Style) -> None:
        self.number, self.command = number, command
        self.sent = 0
        self.over = False
        self.completed = False
        """`Complete` was sent."""
        self._host, self._style = host, style
        self._in_flight = _InFlight()
        self._makers: dict[Channel, LineMaker] = {}
        self._notes: list[str] = []
        self._ended = self._blocked = False

    def room(self) -> int:
        full = len(self._in_flight) >= self._style.updates_max
        room = 0 if full or self.over else max(0, self._style.window_bytes - self._in_flight.bytes)
        self._blocked = self._blocked or not room
        return room

    def write_journal(self, journal: Journal) -> int:
        """Send what fits. How far it moved."""
        self._check()
        room = min(self.room(), self._style.update_bytes)
        batch = journal.batch(self.sent, room) if room else None
        if batch is None:
            return 0
        self.sent = batch.end
        self._send_batch(batch)
        return batch.end - batch.start

    def write(self, data: bytes | memoryview) -> None:
        """Whole records."""
        self._check()
        batch = Batch.parse(bytes(data), self.sent)
        self.sent = batch.end
        self._send_batch(batch)

    def note(self, text: str) -> None:
        """Say something in the command's header, at the latest before its end."""
        self._notes.append(text)

    def end(self) -> None:
        self._ended = True
        self._finish()

    def reset(self, reason: str) -> None:
        """The master is to hear that there will be no more."""
        if not self.completed and not self.over:
            kind, _, text = reason.partition(": ")
            self._complete((kind, text) if text else ("Cancelled", reason), self.sent)
        self.over = True

    def answered(self, handle: int, value: Value = None) -> None:
        end = self._in_flight.answered(handle)
        if self.over or end is None:
            return
        self._progress(end)
        if self._blocked and self.room():
            self._blocked = False
            self._host.emit(StreamWritable(self.number))

    def failed(self, handle: int, kind: str, text: str) -> None:
        """The master did not like it. It may be one update only, so that the command goes on, as Buildbot's does."""
        if kind == "UnknownCommand" and not self.over:
            self.over = True
            self._host.emit(StreamStopped(self.number, f"{kind}: {text}"))
        self.answered(handle)

    def _check(self) -> None:
        if self.over or self._ended:
            raise LocalProtocolError(f"stream {self.number} is over")

    def _send_batch(self, batch: Batch) -> None:
        elements = tuple(piece for element in _joined(self._elements(batch)) for piece in _cut(element, self._style))
        if elements:
            self._send(Update(self.command, elements), batch.end, batch.end - batch.start)
        if batch.complete:
            self._complete(batch.failure(), batch.end)
        if len(self._in_flight):
            self._in_flight.reach(batch.end)
        else:
            # All of it is held back here, in memory of our own.
            self._progress(batch.end)

    def _complete(self, failure: tuple[str, str] | None, end: int) -> None:
        self._host.completing(self.command)
        self.completed = True
        self._send(Complete(self.command, failure), end, 0)

    def _send(self, call: Call, end: int, count: int) -> None:
        self._in_flight.add(self._host.send(call, self), end, count)

    def _elements(self, batch: Batch) -> Iterator[Element]:
        records, gaps = iter(batch.records()), iter(batch.gaps())
        for kind, record in _kinds(batch.raw):
            if kind in _LOGS:
                log = next(records)
                maker = self._maker((log.channel, log.name))
                times = log.times if self._style.lines.timed else ()
                lines = maker.add(log.data, times, log.time, continues=log.continues)
                if lines is not None:
                    yield Text(log.channel, log.name, *lines)
            elif kind == _UPDATE:
                values = Batch.parse(bytes(record)).updates()
                if "rc" in values:
                    yield from self._rest()
                yield from (Item(key, value) for key, value in values.items())
            elif kind == _GAP:
                gap = next(gaps)
                yield Text(
                    "header", None, f"{gap.bytes} bytes of {gap.name or gap.channel} are missing: {gap.reason}\n"
                )
            elif kind == _COMPLETE:
                yield from self._rest()

    def _rest(self) -> Iterator[Element]:
        """What was held back, and notes."""
        for (channel, name), maker in self._makers.items():
            if (lines := maker.flush()) is not None:
                yield Text(channel, name, *lines)
        notes, self._notes = self._notes, []
        for note in notes:
            yield Text("header", None, note)

    def _maker(self, channel: Channel) -> LineMaker:
        maker = self._makers.get(channel)
        if maker is None:
            maker = self._makers[channel] = LineMaker(self._style.lines, self._style.encoding)
        return maker

    def _progress(self, end: int) -> None:
        if not self._finish():
            self._host.emit(StreamProgress(self.number, end, end, False))

    def _finish(self) -> bool:
        if not self._ended or self.over or self._in_flight:
            return False
        self.over = True
        self._host.emit(StreamProgress(self.number, self.sent, self.sent, True))
        return True


@final
class SentUpload:
    """An upload, as `Write` and `CloseWriter` and `Utime`, or `Write` and `Unpack`."""

    def __init__(self, host: Host, number: int, command: str, style: Style) -> None:
        self.number, self.command = number, command
        self.sent = 0
        self.over = False
        self._host, self._style = host, style
        self._assembler = RecordAssembler()
        self._in_flight = _InFlight()
        self._utime: tuple[float, float] | None = None
        self._unpacks = self._closes = self._ended = self._blocked = False
        self._closing: int | None = None
        self._timing: int | None = None

    def room(self) -> int:
        unsent = self._in_flight.bytes + len(self._assembler)
        room = 0 if self.over else max(0, self._style.window_bytes - unsent)
        self._blocked = self._blocked or not room
        return room

    def write(self, data: bytes | memoryview) -> None:
        if self.over or self._ended:
            raise LocalProtocolError(f"stream {self.number} is over")
        self.sent += len(data)
        batch = self._assembler.add(data)
        if batch is None:
            return
        for chunk in batch.chunks():
            for start in range(0, len(chunk), self._style.block_bytes):
                block = chunk[start : start + self._style.block_bytes]
                self._in_flight.add(self._host.send(Write(self.command, block), self), batch.end, len(block))
        self._utime = batch.utime() or self._utime
        if batch.unpack:
            self._unpacks = True
            self._in_flight.add(self._host.send(Unpack(self.command), self), batch.end, 0)
        self._closes = self._closes or batch.close() is not None

    def end(self) -> None:
        self._assembler.check_whole()
        self._ended = True
        self._go_on()

    def reset(self, reason: str) -> None:
        """It is not closed: the master keeps what it had."""
        self.over = True

    def answered(self, handle: int, value: Value = None) -> None:
        if handle == self._timing:
            self._done()
            return
        if handle == self._closing:
            self._closing = None
            self._closed()
            return
        end = self._in_flight.answered(handle)
        if self.over or end is None:
            return
        self._go_on()
        if not self.over:
            self._host.emit(StreamProgress(self.number, end, 0, False))
            if self._blocked and self.room():
                self._blocked = False
                self._host.emit(StreamWritable(self.number))

    def failed(self, handle: int, kind: str, text: str) -> None:
        if handle == self._timing:
            # Buildbot 4.3's master cannot take the times on msgpack. The data are in their place.
            self._host.note(self.command, f"the master did not take the file's times: {text or kind}\n")
            self._done()
        elif not self.over:
            self.over = True
            self._host.emit(StreamStopped(self.number, f"{kind}: {text}"))

    def _go_on(self) -> None:
        if self._ended and not self.over and not self._in_flight and self._closing is None and self._timing is None:
            if self._closes and not self._unpacks:
                self._closing = self._host.send(CloseWriter(self.command), self)
            else:
                self._done()

    def _closed(self) -> None:
        if self.over:
            return
        if self._utime is None:
            self._done()
        else:
            self._timing = self._host.send(Utime(self.command, *self._utime), self)

    def _done(self) -> None:
        if not self.over:
            self.over = True
            self._host.emit(StreamProgress(self.number, self.sent, self.sent, True))


def _kinds(raw: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while (length := record_bytes(raw, at)) is not None:
        yield raw[at + PREFIX_BYTES], raw[at : at + length]
        at += length


def _joined(elements: Iterator[Element]) -> Iterator[Element]:
    """With neighbours of one channel as one text: a call's cost is in its elements."""
    last: Element | None = None
    for element in elements:
        if isinstance(last, Text) and isinstance(element, Text) and _are_neighbours(last, element):
            last = Text(last.channel, last.name, f"{last.text!s}{element.text!s}", [*last.times, *element.times])
            continue
        if last is not None:
            yield last
        last = element
    if last is not None:
        yield last


def _are_neighbours(first: Text, second: Text) -> bool:
    return (first.channel, first.name) == (second.channel, second.name) and len(first.text) <= JOINED_CHARS_MAX


def _cut(element: Element, style: Style) -> Iterator[Element]:
    """A text in pieces that the wire can carry."""
    if not isinstance(element, Text) or len(element.text) <= style.text_chars_max:
        yield element
        return
    assert isinstance(element.text, str)
    rest, times = element.text, list(element.times)
    while len(rest) > style.text_chars_max:
        end = rest.rfind("\n", 0, style.text_chars_max) + 1 or rest.find("\n", style.text_chars_max) + 1 or len(rest)
        if style.text_chars_limit is not None:
            end = min(end, style.text_chars_limit)
        piece, rest = rest[:end], rest[end:]
        count = piece.count("\n")
        yield Text(element.channel, element.name, piece, times[:count])
        times = times[count:]
    if rest:
        yield Text(element.channel, element.name, rest, times)
