"""The worker's end: it is asked, and its streams become calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs

from tailrace.dialects.buildbot.calls import Complete
from tailrace.dialects.buildbot.lines import LineStyle
from tailrace.dialects.buildbot.msgpack import codec
from tailrace.dialects.buildbot.msgpack.codec import BadMessage, Incoming, need
from tailrace.dialects.buildbot.msgpack.side import Side
from tailrace.dialects.buildbot.msgpack.websocket import ClientSocket, Denied, Opened
from tailrace.dialects.buildbot.spelling import MSGPACK_NAMES, decoded, from_msgpack
from tailrace.dialects.buildbot.streams import Style, WorkerStreams
from tailrace.errors import LocalProtocolError
from tailrace.messages import (
    GetWorkerInfo,
    Held,
    InterruptCommand,
    LoggedIn,
    PeerClosed,
    Print,
    Refused,
    Replied,
    Shutdown,
    StartCommand,
)

if TYPE_CHECKING:
    from tailrace.dialects.buildbot.calls import Call
    from tailrace.dialects.buildbot.msgpack.websocket import SocketEvent
    from tailrace.limits import Limits
    from tailrace.messages import Request, Value

NEWLINE_RE: Final = r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)"
"""What a master of Buildbot's sends, and what holds if a master sends nothing."""

# Below that a text would be shorter than many a line.
_TEXT_CHARS_MIN: Final = 1024
# What a master says before it has taken the worker.
_GREETINGS: Final = frozenset({"print", "get_worker_info", "keepalive"})
_SETTINGS: Final = ("buffer_size", "buffer_timeout", "newline_re", "max_line_length")


@final
@attrs.frozen
class _Stream:
    """A call of a stream's."""


_Side: TypeAlias = Side[ClientSocket, WorkerStreams, _Stream, "Request"]
_STREAM: Final = _Stream()


@final
class MsgpackWorker(_Side):
    """The connection to a master, at the worker."""

    def __init__(self, *, id: str, limits: Limits, host: str, name: str, secret: bytes, software: str) -> None:  # noqa: A002
        super().__init__()
        self._socket = ClientSocket(host=host, name=name, password=secret, id=id, software=software or "tailrace")
        lines = LineStyle(separator=re.compile(NEWLINE_RE))
        self._streams = WorkerStreams(self, Style(lines=lines, window_bytes=limits.stream_window_bytes))
        self._is_ours = False
        self._attached = False
        self._attaching: int | None = None
        self._directories: set[str] = set()

    def admit(self, secret: bytes) -> bool:
        raise LocalProtocolError("a worker lets nobody in")

    def refuse(self, reason: str, text: str) -> None:
        raise LocalProtocolError("a worker refuses nobody")

    def call(self, request: Request) -> int:
        if not isinstance(request, Held):
            raise LocalProtocolError(f"{type(request).__name__} cannot be said on this wire by a worker")
        if self._attached:
            return self._answer_at_once(None)
        self._attaching = self._next_number()
        return self._attaching

    # for the streams

    def send(self, call: Call) -> int:
        """A stream calls the master."""
        message = codec.encode_call(call, directory=call.command in self._directories, terse=self._is_ours)
        if isinstance(call, Complete):
            self._directories.discard(call.command)
        return self._request(message, _STREAM)

    # ------------------------------------------------------------ private

    def _on_socket(self, event: SocketEvent) -> None:
        match event:
            case Opened():
                if event.peer:
                    # One of ours: it takes what the programs write, as they write it.
                    self._is_ours = True
                    self._streams.style = attrs.evolve(self._streams.style, lines=LineStyle(whole=False))
                self._events.append(LoggedIn(peer=event.peer, software=event.software))
            case Denied(reason, text):
                self._events.append(Refused(reason, text))
            case _:
                raise AssertionError(f"{event} at a worker")

    def _closed_without_a_word(self) -> PeerClosed:
        if self._attached:
            return PeerClosed("bye", "")
        return PeerClosed("duplicate", "the master closed at once; perhaps a worker of this name is attached")

    def _on_request(self, sequence: int, message: Incoming) -> None:
        self._do(sequence, message)
        if message.op not in _GREETINGS and not self._attached:
            self._attached = True
            if self._attaching is not None:
                self._events.append(Replied(self._attaching, None))

    def _do(self, sequence: int, message: Incoming) -> None:
        match message.op:
            case "print":
                self._called_by(sequence, Print(need(message.message, "message")))
            case "keepalive":
                self.respond(sequence, None)
            case "get_worker_info":
                self._called_by(sequence, GetWorkerInfo())
            case "set_worker_settings":
                self._set(codec.value(message.args))
                self.respond(sequence, None)
            case "start_command":
                self._called_by(sequence, _start(message))
            case "interrupt_command":
                command = need(message.command_id, "command_id")
                why = need(message.why, "why")
                self._called_by(sequence, InterruptCommand(message.builder_name or "", command, why))
            case "shutdown":
                self._called_by(sequence, Shutdown())
            case op:
                raise BadMessage(f"Command {op} does not exist.")

    def _called_by(self, sequence: int, request: Request) -> None:
        self._called(sequence, request, request)

    def _result(self, asked: Request, value: Value) -> Value:
        if not isinstance(asked, GetWorkerInfo) or not isinstance(value, dict):
            return value
        commands = value.get("worker_commands")
        if not isinstance(commands, dict):
            return value
        # Masters look for the name that they are going to use.
        spelled = {theirs: commands[ours] for ours, theirs in MSGPACK_NAMES.items() if ours in commands}
        return {**value, "worker_commands": {**commands, **spelled}}

    def _replied(self, asked: Request) -> None:
        if isinstance(asked, StartCommand):
            if asked.name == "uploadDirectory":
                self._directories.add(asked.command)
            self._streams.accepted(asked.command, reads="FileReader" in asked.impls.values())

    def _on_response(self, waiting: _Stream, sequence: int, value: Value) -> None:
        self._streams.answered(sequence, value)

    def _on_failure(self, waiting: _Stream, sequence: int, text: str) -> None:
        is_unknown = "unknown" in text and "command_id" in text
        self._streams.failed(sequence, *(("UnknownCommand", text) if is_unknown else codec.said(text)))

    def _set(self, settings: Value) -> None:
        """For commands that start later. What would lose something is not done: a long line stays whole."""
        if not isinstance(settings, dict):
            raise BadMessage("'message did not contain obligatory \"args\" key'")
        for key in _SETTINGS:
            if key not in settings:
                raise BadMessage(f"'message did not contain obligatory \"{key}\" key'")
        size, separator = settings["buffer_size"], settings["newline_re"]
        if not isinstance(size, int) or not isinstance(separator, str):
            raise BadMessage("buffer_size is a number and newline_re a text")
        if self._is_ours:
            return
        try:
            lines = LineStyle(separator=re.compile(separator), usual=separator == NEWLINE_RE)
        except (re.error, OverflowError, RecursionError) as error:
            raise BadMessage(f"newline_re: {error}") from None
        self._streams.style = attrs.evolve(self._streams.style, lines=lines, text_chars_max=max(size, _TEXT_CHARS_MIN))


def _start(message: Incoming) -> StartCommand:
    command, name = need(message.command_id, "command_id"), need(message.command_name, "command_name")
    try:
        args = decoded(codec.value(message.args))
    except UnicodeDecodeError as error:
        raise BadMessage(str(error)) from None
    if not isinstance(args, dict):
        raise BadMessage("'message did not contain obligatory \"args\" key'")
    name, args, impls = from_msgpack(name, args)
    return StartCommand(builder=message.builder_name or "", command=command, name=name, args=args, impls=impls)
