"""The master's end: it asks, and the worker's calls become streams."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeAlias, assert_never, final

import attrs

from tailrace.dialects.buildbot.msgpack import codec
from tailrace.dialects.buildbot.msgpack.codec import BadMessage, Incoming
from tailrace.dialects.buildbot.msgpack.side import Side
from tailrace.dialects.buildbot.msgpack.websocket import Asked, ServerSocket
from tailrace.dialects.buildbot.spelling import Place, has_hidden, hide, to_msgpack
from tailrace.dialects.buildbot.streams import MasterStreams
from tailrace.errors import LocalProtocolError
from tailrace.messages import (
    AskShutdown,
    CallFailed,
    ForgetCommand,
    GetWorkerInfo,
    Held,
    InterruptCommand,
    LoggedIn,
    LoginAsked,
    Print,
    Replied,
    ResumeCommand,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace.dialects.buildbot.msgpack.websocket import SocketEvent
    from tailrace.dialects.buildbot.receiving import Handle
    from tailrace.dialects.dialect import Clock
    from tailrace.limits import Limits
    from tailrace.messages import Event, Request, Value

_UNKNOWN_COMMAND = "unrecognized WorkerCommand"
# As Buildbot's master says it.
_UNKNOWN_ID = "'unknown \"command_id\"'"


@final
@attrs.frozen
class _Waiting:
    """A request of ours; `number`: link's call that it is."""

    number: int | None = None
    command: str | None = None
    is_info: bool = False


_Side: TypeAlias = Side[ServerSocket, MasterStreams, _Waiting, None]


@final
class _Answers:
    """The streams' way to the worker."""

    def __init__(self, master: MsgpackMaster) -> None:
        self._master = master

    def answer(self, handle: Handle, value: bytes | None) -> None:
        """See `Answering`."""
        assert isinstance(handle, int)
        self._master.respond(handle, value)

    def refuse(self, handle: Handle, kind: str, text: str) -> None:
        """See `Answering`."""
        assert isinstance(handle, int)
        self._master.respond_failure(handle, _UNKNOWN_ID if kind == "UnknownCommand" else codec.spoken(kind, text))

    def emit(self, event: Event) -> None:
        """See `Answering`."""
        self._master.emit(event)


@final
class MsgpackMaster(_Side):
    """One worker's connection, at the master."""

    def __init__(self, *, id: str, limits: Limits, clock: Clock, software: str) -> None:  # noqa: A002
        super().__init__()
        self._socket = ServerSocket(id=id, software=software or "tailrace")
        self._streams = MasterStreams(
            _Answers(self), clock, window_bytes=limits.stream_window_bytes, unsettled_max=limits.connection_window_bytes
        )
        self._login: Asked | None = None
        self._place = Place()
        self._directories: dict[str, str] = {}
        self._is_set = False

    @property
    def receive_gathers(self) -> int:
        return self._streams.gathers

    @property
    def receive_paused(self) -> bool:
        return self._streams.paused

    def admit(self, secret: bytes) -> bool:
        login = self._login
        if login is None:
            raise LocalProtocolError("nobody has asked")
        if not hmac.compare_digest(login.password, secret) or not secret:
            self._socket.refuse(401, "credentials", "unknown worker or wrong password")
            return False
        if self._socket.admit():
            self._events.append(LoggedIn(peer=login.peer, software=login.software))
            # There is no such call on this wire: who is let in has nothing that it could hold.
            self._called(None, Held(()), None)
        return True

    def refuse(self, reason: str, text: str) -> None:
        self._socket.refuse(503, reason, text)

    def call(self, request: Request) -> int:
        match request:
            case Print(message):
                return self._ask({"op": "print", "message": message})
            case GetWorkerInfo():
                return self._ask({"op": "get_worker_info"}, is_info=True)
            case SetBuilderList(builders):
                self._directories = dict(builders)
                return self._answer_at_once(list(self._directories))
            case StartBuild():
                return self._answer_at_once(None)
            case StartCommand():
                return self._start(request)
            case InterruptCommand(builder, command, why):
                about = {"builder_name": builder} if builder else {}
                return self._ask({"op": "interrupt_command", **about, "command_id": command, "why": why})
            case Shutdown():
                return self._ask({"op": "shutdown"})
            case ResumeCommand() | ForgetCommand() | Held() | AskShutdown():
                raise LocalProtocolError(f"{type(request).__name__} cannot be said on this wire by a master")
        assert_never(request)

    # ------------------------------------------------------------ private

    def _ask(self, message: Mapping[str, object], *, command: str | None = None, is_info: bool = False) -> int:
        number = self._next_number()
        self._request(message, _Waiting(number, command, is_info))
        return number

    def _start(self, request: StartCommand) -> int:
        directory = self._directories.get(request.builder, "")
        args = request.args
        if has_hidden(args) and not self._is_ours():
            args = hide(args, self._place)
        name, wanted = to_msgpack(request.name, args, directory, self._place)
        about = {"builder_name": request.builder} if request.builder else {}
        message = {"op": "start_command", **about, "command_id": request.command, "command_name": name, "args": wanted}
        number = self._ask(message, command=request.command)
        kinds = request.impls.values()
        self._streams.begin(request.command, writes="FileWriter" in kinds, reads="FileReader" in kinds)
        return number

    def _is_ours(self) -> bool:
        """Whether the worker is one of Tailrace's: it says so in its handshake."""
        return self._login is not None and bool(self._login.peer)

    def _on_socket(self, event: SocketEvent) -> None:
        assert isinstance(event, Asked)
        self._login = event
        self._events.append(LoginAsked(name=event.name, instance=event.peer, software=event.software))

    def _on_request(self, sequence: int, message: Incoming) -> None:
        call = codec.decode_call(message)
        if call is None:
            raise BadMessage(f"Command {message.op} does not exist.")
        self._streams.called(sequence, call)

    def _on_response(self, waiting: _Waiting, sequence: int, value: Value) -> None:
        if waiting.is_info and isinstance(value, dict):
            self._place = Place.of_info(value)
            # What comes is text, whatever the worker's programs wrote.
            value = {**value, "encoding": "utf-8"}
            self._set_worker()
        if waiting.number is not None:
            self._events.append(Replied(waiting.number, value))

    def _on_failure(self, waiting: _Waiting, sequence: int, text: str) -> None:
        if waiting.command is not None:
            self._streams.drop(waiting.command)
        if waiting.number is not None:
            kind, said = ("UnknownCommand", text) if _UNKNOWN_COMMAND in text else codec.said(text)
            self._events.append(CallFailed(waiting.number, kind, said))

    def _set_worker(self) -> None:
        if not self._is_set:
            self._is_set = True
            self._request({"op": "set_worker_settings", "args": codec.SETTINGS}, _Waiting())
