"""Streams made of calls: what both of Buildbot's wires are built on.

`WorkerStreams` turns the streams of `link` into calls on the master, `MasterStreams` the worker's calls into streams.
A dialect owns one of them, hands `link`'s stream methods through, and tells it of calls and of answers. Calls are
values (`calls.py`); how they look on the wire, and what a handle is, the dialect knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, final

from tailrace.dialects.buildbot.calls import (
    CloseReader,
    CloseWriter,
    Complete,
    Read,
    Unpack,
    Update,
    Utime,
    Write,
)
from tailrace.dialects.buildbot.command import ReceivedCommand
from tailrace.dialects.buildbot.downloading import ReceivedDownload, SentDownload
from tailrace.dialects.buildbot.receiving import ReceivedJournal, ReceivedUpload
from tailrace.dialects.buildbot.sending import SentJournal, SentUpload, Style
from tailrace.errors import LocalProtocolError
from tailrace.messages import StreamOpened, StreamStopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailrace._core import BananaOutput, Batch, Journal
    from tailrace.dialects.buildbot.calls import Call
    from tailrace.dialects.buildbot.receiving import Handle
    from tailrace.dialects.buildbot.sending import Sender
    from tailrace.messages import Event, Role, Value

__all__ = ["Answering", "Calling", "MasterStreams", "Style", "WorkerStreams"]

# Our own workers have 2 MiB of output unanswered at most; Buildbot's do not wait for answers.
_GATHERED_BYTES = 512 << 10
_GATHERED_BYTES_UNASKED = 2 << 20

_Sent: TypeAlias = SentJournal | SentUpload


class Calling(Protocol):
    """A worker's wire."""

    def send(self, call: Call, /) -> int:
        """Call the master. Then say `answered` or `failed` of this handle, once, and not before this returns."""

    def emit(self, event: Event, /) -> None:
        """Tell `link`, in order."""


class Answering(Protocol):
    """A master's wire."""

    def answer(self, handle: Handle, value: bytes | None, /) -> None:
        """Answer a call of the worker's: with bytes for `Read`, else with whatever means that it is done."""

    def refuse(self, handle: Handle, kind: str, text: str, /) -> None:
        """Answer a call of the worker's: it failed. `kind` is `UnknownCommand` if there is no such command."""

    def emit(self, event: Event, /) -> None:
        """Tell `link`, in order."""


@final
class WorkerStreams:
    """A worker's streams. `style` may be changed; it holds for what is opened later."""

    def __init__(self, wire: Calling, style: Style) -> None:
        self.style = style
        self._wire = wire
        self._number = 0
        self._sent: dict[int, _Sent] = {}
        self._downloads: dict[int, ReceivedDownload] = {}
        self._senders: dict[int, Sender] = {}
        self._notes: dict[str, list[str]] = {}

    # from the wire

    def accepted(self, command: str, *, reads: bool) -> None:
        """`link` has accepted a command, and this was said. `reads`: it has a reader."""
        if reads:
            download = ReceivedDownload(self, self._next(), command, self.style)
            self._downloads[download.number] = download
            self.emit(StreamOpened(download.number, "download", command, 0))
            download.read_ahead()

    def answered(self, handle: int, value: Value) -> None:
        """The master returned. A handle that is not ours is ignored."""
        sender = self._senders.pop(handle, None)
        if sender is not None:
            sender.answered(handle, value)
            self._tidy(sender)

    def failed(self, handle: int, kind: str, text: str) -> None:
        """The master raised. `kind` is `UnknownCommand` if it knows no such command any more."""
        sender = self._senders.pop(handle, None)
        if sender is not None:
            sender.failed(handle, kind, text)
            self._tidy(sender)

    # from link: see `Dialect`

    def open(self, role: Role, name: str) -> int:
        number = self._next()
        if role == "journal":
            journal = SentJournal(self, number, name, self.style)
            for note in self._notes.pop(name, ()):
                journal.note(note)
            self._sent[number] = journal
        elif role == "upload":
            self._sent[number] = SentUpload(self, number, name, self.style)
        else:
            raise LocalProtocolError(f"a worker sends no {role}")
        return number

    def room(self, stream: int) -> int:
        sent = self._sent.get(stream)
        return sent.room() if sent is not None else 0

    def write(self, stream: int, data: bytes | memoryview) -> None:
        self._open_one(stream).write(data)

    def write_journal(self, stream: int, journal: Journal) -> int:
        sent = self._open_one(stream)
        if not isinstance(sent, SentJournal):
            raise LocalProtocolError(f"stream {stream} is no journal")
        return sent.write_journal(journal)

    def sent(self, stream: int) -> int:
        return self._open_one(stream).sent

    def end(self, stream: int) -> None:
        sent = self._open_one(stream)
        sent.end()
        self._tidy(sent)

    def reset(self, stream: int, reason: str) -> None:
        sent = self._sent.pop(stream, None)
        if sent is not None:
            sent.reset(reason)

    def take(self, stream: int, max_bytes: int) -> Batch | None:
        download = self._downloads.get(stream)
        return download.take(max_bytes) if download is not None else None

    def ended(self, stream: int) -> bool:
        download = self._downloads.get(stream)
        return download is not None and download.ended

    def settle(self, stream: int, next: int, durable: int) -> None:  # noqa: A002 - as on the wire
        download = self._downloads.get(stream)
        if download is not None:
            download.settle(next, durable)
            self._tidy(download)

    def stop(self, stream: int, reason: str) -> None:
        download = self._downloads.pop(stream, None)
        if download is not None:
            download.stop(reason)

    def __len__(self) -> int:
        return len(self._sent) + len(self._downloads)

    # for the streams

    def send(self, call: Call, sender: Sender) -> int:
        handle = self._wire.send(call)
        self._senders[handle] = sender
        return handle

    def emit(self, event: Event) -> None:
        self._wire.emit(event)

    def note(self, command: str, text: str) -> None:
        for sent in self._sent.values():
            if isinstance(sent, SentJournal) and sent.command == command:
                sent.note(text)
                return
        self._notes.setdefault(command, []).append(text)

    def completing(self, command: str) -> None:
        """What the command did not need to the end is closed before it."""
        for download in [download for download in self._downloads.values() if download.command == command]:
            download.stop("the command is complete")
            del self._downloads[download.number]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _open_one(self, stream: int) -> _Sent:
        try:
            return self._sent[stream]
        except KeyError:
            raise LocalProtocolError(f"stream {stream} is over") from None

    def _tidy(self, sender: object) -> None:
        if isinstance(sender, SentJournal | SentUpload) and sender.over:
            self._sent.pop(sender.number, None)
        elif isinstance(sender, ReceivedDownload) and sender.over:
            self._downloads.pop(sender.number, None)


@final
class MasterStreams:
    """A master's streams. `clock` gives wall and monotonic time in microseconds, for what comes without a time.

    `window_bytes` is what waits of one download, `unsettled_max` from where on `paused` says that no more should be
    read.
    """

    def __init__(
        self, wire: Answering, clock: Callable[[], tuple[int, int]], *, window_bytes: int, unsettled_max: int
    ) -> None:
        self.unsettled = 0
        self.brought_output = False
        """The last call did, and nothing else."""
        self.survives_errors = True
        """A worker of Buildbot's does not, on Perspective Broker: it dies of reporting it, and never completes."""
        self._wire = wire
        self._clock = clock
        self._window_bytes = window_bytes
        self._unsettled_max = unsettled_max
        self._number = 0
        self._commands: dict[str, ReceivedCommand] = {}
        self._received: dict[int, tuple[ReceivedJournal | ReceivedUpload, ReceivedCommand]] = {}
        self._downloads: dict[int, tuple[str, SentDownload]] = {}

    @property
    def gathers(self) -> int:
        """How much more output is worth a turn: see `Dialect.receive_gathers`."""
        if not self.brought_output:
            return 0
        return _GATHERED_BYTES if self.survives_errors else _GATHERED_BYTES_UNASKED

    @property
    def paused(self) -> bool:
        """The worker is too far ahead."""
        return self.unsettled > self._unsettled_max

    # from the wire

    def begin(self, command: str, *, writes: bool, reads: bool) -> None:
        """A command is about to be started; calls for it may come before its start is answered."""
        if command in self._commands:
            self.drop(command)
        journal = ReceivedJournal(self, self._next(), command)
        upload = ReceivedUpload(self, self._next(), command) if writes else None
        download = SentDownload(self, self._window_bytes) if reads else None
        begun = self._commands[command] = ReceivedCommand(self, journal, upload, download)
        self._received[journal.number] = (journal, begun)
        if upload is not None:
            self._received[upload.number] = (upload, begun)

    def drop(self, command: str) -> None:
        """It was refused, or is over: what still comes of it is of an unknown command."""
        dropped = self._commands.pop(command, None)
        if dropped is None:
            return
        for stream in (dropped.journal, dropped.upload):
            if stream is not None:
                stream.stop("LocalProtocolError: the command is over")
                del self._received[stream.number]
        if dropped.download is not None:
            dropped.download.abandon()

    def __contains__(self, command: object) -> bool:
        return command in self._commands

    def called(self, handle: Handle, call: Call) -> None:
        """The worker calls. It is answered when what it brought was taken."""
        command = self._commands.get(call.command)
        if command is None:
            self.refuse(handle, "UnknownCommand", f"there is no command {call.command!r}")
            return
        upload, download = command.upload, command.download
        self.brought_output = isinstance(call, Update)
        match call:
            case Update():
                command.update(handle, call)
            case Complete():
                command.complete(handle, call)
            case Write() if upload is not None:
                upload.write(handle, call)
            case CloseWriter() if upload is not None:
                upload.close(handle)
            case Utime() if upload is not None:
                upload.utime(handle, call)
            case Unpack() if upload is not None:
                upload.unpack(handle)
            case Read(_, length) if download is not None:
                download.read(handle, length)
            case CloseReader() if download is not None:
                download.close(handle)
            case _:
                self.refuse(handle, "LocalProtocolError", f"command {call.command!r} has no file for that")
        self._tidy(command)

    def output(self, handle: Handle, name: str, output: BananaOutput) -> None:
        """The worker calls `update`, with nothing but text."""
        command = self._commands.get(name)
        if command is None:
            self.refuse(handle, "UnknownCommand", f"there is no command {name!r}")
            return
        self.brought_output = True
        command.output(handle, output)

    # from link: see `Dialect`

    def open(self, role: Role, name: str) -> int:
        if role != "download":
            raise LocalProtocolError(f"a master sends no {role}")
        number = self._next()
        command = self._commands.get(name)
        if command is None or command.download is None:
            self.emit(StreamStopped(number, f"LocalProtocolError: command {name!r} reads nothing"))
        else:
            self._downloads[number] = (name, command.download)
            command.download.open(number)
        return number

    def room(self, stream: int) -> int:
        found = self._downloads.get(stream)
        return found[1].room() if found is not None else 0

    def write(self, stream: int, data: bytes | memoryview) -> None:
        self._open_one(stream).write(data)

    def write_journal(self, stream: int, journal: Journal) -> int:
        raise LocalProtocolError("a master sends no journal")

    def sent(self, stream: int) -> int:
        return self._open_one(stream).sent

    def end(self, stream: int) -> None:
        self._open_one(stream).end()

    def reset(self, stream: int, reason: str) -> None:
        found = self._downloads.pop(stream, None)
        if found is not None:
            found[1].reset(reason)

    def take(self, stream: int, max_bytes: int) -> Batch | None:
        found = self._received.get(stream)
        return found[0].take(max_bytes) if found is not None else None

    def ended(self, stream: int) -> bool:
        found = self._received.get(stream)
        return found is not None and found[0].ended

    def settle(self, stream: int, next: int, durable: int) -> None:  # noqa: A002 - as on the wire
        found = self._received.get(stream)
        if found is not None:
            found[0].settle(next, durable)
            self._tidy(found[1])

    def stop(self, stream: int, reason: str) -> None:
        found = self._received.get(stream)
        if found is not None:
            found[0].stop(reason)
            self._tidy(found[1])

    def __len__(self) -> int:
        return len(self._received) + len(self._downloads)

    # for the streams

    def answer(self, handle: Handle, value: bytes | None) -> None:
        self._wire.answer(handle, value)

    def refuse(self, handle: Handle, kind: str, text: str) -> None:
        self._wire.refuse(handle, kind, text)

    def emit(self, event: Event) -> None:
        self._wire.emit(event)

    def now(self) -> tuple[int, int]:
        return self._clock()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _open_one(self, stream: int) -> SentDownload:
        try:
            return self._downloads[stream][1]
        except KeyError:
            raise LocalProtocolError(f"stream {stream} is over") from None

    def _tidy(self, command: ReceivedCommand) -> None:
        """Go on with what waited, and forget what is over."""
        command.go_on()
        if command.journal.over and command.journal.completed:
            self.drop(command.journal.command)
        if command.download is not None and command.download.over and command.download.number is not None:
            self._downloads.pop(command.download.number, None)
