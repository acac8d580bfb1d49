"""The master's side of Perspective Broker: it serves the login, and calls the worker's objects."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, assert_never, final

import attrs

from tailrace.dialects.buildbot.calls import Complete, Update
from tailrace.dialects.buildbot.pb import codec, failures
from tailrace.dialects.buildbot.pb.broker import ROOT, UNANSWERED_PAUSE, Broker
from tailrace.dialects.buildbot.pb.jelly import Failure, Remote, as_text
from tailrace.dialects.buildbot.pb.objects import (
    Challenger,
    CommandObject,
    Perspective,
    ReaderObject,
    WriterObject,
)
from tailrace.dialects.buildbot.pb.side import Side
from tailrace.dialects.buildbot.pb.spelling import parse_version, spell
from tailrace.dialects.buildbot.streams import MasterStreams
from tailrace.errors import LocalProtocolError
from tailrace.messages import (
    AskShutdown,
    Called,
    CallFailed,
    ForgetCommand,
    GetWorkerInfo,
    Held,
    InterruptCommand,
    LoggedIn,
    LoginAsked,
    PeerClosed,
    Print,
    Replied,
    ResumeCommand,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tailrace.dialects.buildbot.pb import broker
    from tailrace.dialects.buildbot.pb.side import OnAnswer
    from tailrace.dialects.buildbot.pb.spelling import Version
    from tailrace.dialects.buildbot.receiving import Handle
    from tailrace.dialects.dialect import Clock
    from tailrace.limits import Limits
    from tailrace.messages import Event, Request, Value

CHALLENGE_BYTES = 16
_OLD_WORKER = "this master speaks to you as to a buildslave: you have no getWorkerInfo"


@final
@attrs.frozen
class _Login:
    """A worker that has answered its challenge."""

    call: int
    response: bytes
    mind: Remote


@final
class PbMaster(Side):
    """One worker's connection, at the master. See `Dialect`."""

    def __init__(self, *, nonce: bytes, limits: Limits, clock: Clock) -> None:
        streams = MasterStreams(
            _Wire(self), clock, window_bytes=limits.stream_window_bytes, unsettled_max=limits.connection_window_bytes
        )
        self._master_streams = streams
        super().__init__(Broker("server"), streams)
        self._challenge = nonce[:CHALLENGE_BYTES]
        self._name: str | None = None
        self._login: _Login | None = None
        self._admitted = self._attached = self._shutting_down = False
        self._builders: dict[str, Remote] = {}
        self._versions: dict[str, Version] = {}
        self._takes_text = True
        # Calls of the worker's that streams have to answer.
        self._updates: set[int] = set()
        self._joined: dict[int, Sequence[int]] = {}
        self._completing: dict[int, str] = {}

    @property
    def receive_gathers(self) -> int:
        return self._master_streams.gathers

    @property
    def receive_paused(self) -> bool:
        """The worker is too far ahead of those who take what it sends."""
        return self._master_streams.paused or self._broker.unanswered > UNANSWERED_PAUSE

    # ------------------------------------------------------------ from the worker

    def _called(self, called: broker.Called) -> None:
        target = called.target
        match target:
            case CommandObject() | WriterObject() | ReaderObject():
                call = codec.decode_object(target, called.method, called.args, called.kwargs)
                if isinstance(call, Update):
                    self._updates.add(called.call)
                elif isinstance(call, Complete):
                    self._completing[called.call] = call.command
                self._master_streams.called(called.call, call)
            case Perspective():
                self._serve_perspective(called)
            case Challenger():
                self._serve_response(called)
            case _:
                self._serve_root(called)

    def _take_output(self, output: broker.Output) -> None:
        target, calls = output.target, output.calls
        if not isinstance(target, CommandObject):
            failed = failures.NoSuchMethodError(target, "update").failure
            for call in calls:
                self._broker.fail(call, failed)
            return
        # One call stands for all of them.
        last = calls[-1]
        self._joined[last] = calls
        self._master_streams.output(last, target.command, output.texts)

    def _serve_perspective(self, called: broker.Called) -> None:
        match called.method:
            case "keepalive":
                self._broker.answer(called.call, None)
            case "shutdown":
                number = self._ask_link(called.call, AskShutdown())
                self.emit(Called(number, AskShutdown()))
            case _:
                raise failures.NoSuchMethodError(called.target, called.method)

    def _serve_root(self, called: broker.Called) -> None:
        if called.target != ROOT or called.method != "login":
            # `loginAnonymous` too: nobody is let in without a name.
            raise failures.NoSuchMethodError(called.target, called.method)
        if self._name is not None:
            raise ValueError("one login for each connection")
        [name] = called.args
        self._name = as_text(name)
        self._broker.answer(called.call, (self._challenge, self._broker.export(Challenger())))

    def _serve_response(self, called: broker.Called) -> None:
        if called.method != "respond":
            raise failures.NoSuchMethodError(called.target, called.method)
        response, mind = called.args
        # A challenge is good for one answer, and clients without a mind (`sendchange`) are nobody's workers.
        self._broker.revoke(Challenger())
        if not isinstance(mind, Remote) or not isinstance(response, bytes):
            self._broker.fail(called.call, failures.refusal("credentials", ""))
            return
        self._broker.keep(mind)
        self._login = _Login(called.call, response, mind)
        self.emit(LoginAsked(name=self._name or "", instance="", software=""))

    def _ended_by_peer(self) -> Event:
        return PeerClosed("shutdown" if self._shutting_down else "eof", "")

    # ------------------------------------------------------------ the login

    def admit(self, secret: bytes) -> bool:
        login = self._asked_login()
        expected = respond(secret, self._challenge)
        # An empty secret is nobody's; it takes the same work.
        if not hmac.compare_digest(expected, login.response) or not secret:
            self.refuse("credentials", "")
            return False
        self._admitted = True
        self.emit(LoggedIn(peer="", software=""))
        self.emit(Called(self._ask_link(login.call, Held(())), Held(())))
        return True

    def refuse(self, reason: str, text: str) -> None:
        login = self._asked_login()
        self._broker.fail(login.call, failures.refusal(reason, text))
        self._broker.release(login.mind)
        self._closing = True

    def close(self, reason: str, text: str = "") -> None:
        if self._closing:
            return
        if self._login is not None:
            # There is no goodbye on this wire: what there is to say goes into the worker's log.
            if text or reason != "bye":
                self._broker.call(self._login.mind, "print", message=f"the master closes ({reason}): {text}")
            if not self._attached:
                self._broker.fail(self._login.call, failures.refusal(reason, text))
        self._closing = True

    def _asked_login(self) -> _Login:
        if self._login is None or self._admitted or self._closing:
            raise LocalProtocolError("no worker asks to be let in")
        return self._login

    # ------------------------------------------------------------ calls

    def reply(self, call: int, value: Value) -> None:
        their, request = self._asked.pop(call)
        if isinstance(request, Held):
            self._attached = True
            self._broker.answer(their, self._broker.export(Perspective()))
        else:
            self._broker.answer(their, value)

    def ping(self, nonce: int) -> None:
        # `print` would do, but each one is a line in the worker's log.
        self._expect_pong(self._broker.call(self._mind(), "getVersion"), nonce)

    def call(self, request: Request) -> int:
        number = self._next_number()
        match request:
            case Print(message):
                self._call_simply(number, self._mind(), "print", message=message)
            case GetWorkerInfo():
                self._get_worker_info(number)
            case SetBuilderList():
                self._set_builders(number, request)
            case StartBuild(builder):
                self._call_simply(number, self._builder(builder), "startBuild")
            case StartCommand():
                self._start(number, request)
            case InterruptCommand(builder, command, why):
                self._call_simply(number, self._builder(builder), "interruptCommand", command, why)
            case Shutdown():
                self._shutting_down = True
                self._call_simply(number, self._mind(), "shutdown")
            case ResumeCommand() | ForgetCommand() | Held() | AskShutdown():
                raise LocalProtocolError(f"Perspective Broker has no {type(request).__name__}")
            case _:
                assert_never(request)
        return number

    def _call_simply(self, number: int, target: Remote, method: str, *args: object, **kwargs: object) -> None:
        self._expect_reply(self._broker.call(target, method, *args, **kwargs), number, codec.as_value)

    def _set_builders(self, number: int, request: SetBuilderList) -> None:
        def on_answer(value: object) -> None:
            if not isinstance(value, dict):
                raise TypeError("setBuilderList answers with a dictionary")
            references = {as_text(name): remote for name, remote in value.items() if isinstance(remote, Remote)}
            for reference in references.values():
                self._broker.keep(reference)
            old, self._builders = self._builders, references
            for reference in old.values():
                self._broker.release(reference)
            self.emit(Replied(number, list(references)))

        call = self._broker.call(self._mind(), "setBuilderList", list(request.builders))
        self._expect(call, on_answer, lambda failed: self.emit(CallFailed(number, *failures.describe(failed))))

    def _start(self, number: int, request: StartCommand) -> None:
        command = request.command
        writes, reads = "FileWriter" in request.impls.values(), "FileReader" in request.impls.values()
        name, args = spell(request.name, request.args, self._versions, takes_text=self._takes_text)
        target = self._builder(request.builder)
        self._master_streams.begin(command, writes=writes, reads=reads)
        try:
            reference = self._broker.export(CommandObject(command))
            objects = {
                key: self._broker.export(WriterObject(command) if kind == "FileWriter" else ReaderObject(command))
                for key, kind in request.impls.items()
            }
            call = self._broker.call(target, "startCommand", reference, command, name, {**args, **objects})
        except LocalProtocolError:
            self._forget(command)
            raise

        def on_failure(failed: Failure) -> None:
            self._forget(command)
            self.emit(CallFailed(number, *failures.describe(failed)))

        self._expect(call, lambda value: self.emit(Replied(number, None)), on_failure)

    def _forget(self, command: str) -> None:
        self._master_streams.drop(command)
        self._revoke(command)

    def _revoke(self, command: str) -> None:
        """A real worker gives its references back when its garbage is collected, if ever."""
        for token in (CommandObject(command), WriterObject(command), ReaderObject(command)):
            self._broker.revoke(token)

    def _mind(self) -> Remote:
        if self._login is None:
            raise LocalProtocolError("no worker is there")
        return self._login.mind

    def _builder(self, name: str) -> Remote:
        try:
            return self._builders[name]
        except KeyError:
            raise LocalProtocolError(f"the worker has no builder {name!r}") from None

    # ------------------------------------------------------------ what the worker says of itself

    def _get_worker_info(self, number: int) -> None:
        """Also of those that are called buildslaves: they say it in three answers."""

        def on_failure(failed: Failure) -> None:
            if failed.is_a(failures.NO_SUCH_METHOD):
                self._get_slave_info(number)
            else:
                self.emit(CallFailed(number, *failures.describe(failed)))

        call = self._broker.call(self._mind(), "getWorkerInfo")
        self._expect(call, lambda value: self._tell_info(number, self._read_info(value)), on_failure)

    def _get_slave_info(self, number: int) -> None:
        def on_info(value: object) -> None:
            info = self._read_info(value)
            if "worker_commands" in info:
                self._tell_info(number, info)
            else:
                self._add_info(number, info, "worker_commands", "getCommands", lambda: self._add_version(number, info))

        mind = self._mind()
        self._expect(self._broker.call(mind, "print", message=_OLD_WORKER), lambda value: None, lambda failed: None)
        self._expect_info(number, self._broker.call(mind, "getSlaveInfo"), on_info)

    def _add_version(self, number: int, info: dict[str, Value]) -> None:
        self._add_info(number, info, "version", "getVersion", lambda: self._tell_info(number, info))

    def _add_info(self, number: int, info: dict[str, Value], key: str, method: str, go_on: Callable[[], None]) -> None:
        def on_answer(value: object) -> None:
            info[key] = codec.as_texts(value)
            go_on()

        def on_failure(failed: Failure) -> None:
            if not failed.is_a(failures.NO_SUCH_METHOD):
                self.emit(CallFailed(number, *failures.describe(failed)))
                return
            go_on()

        self._expect(self._broker.call(self._mind(), method), on_answer, on_failure)

    def _expect_info(self, number: int, call: int, on_answer: OnAnswer) -> None:
        self._expect(call, on_answer, lambda failed: self.emit(CallFailed(number, *failures.describe(failed))))

    def _read_info(self, value: object) -> dict[str, Value]:
        if not isinstance(value, dict):
            raise TypeError("a worker's info is a dictionary")
        self._takes_text = not any(isinstance(key, bytes) for key in value)
        info = codec.as_texts(value)
        assert isinstance(info, dict)
        if "slave_commands" in info:
            info["worker_commands"] = info.pop("slave_commands")
        if "encoding" in info:
            # Output comes as text; a note of the worker's may have this name.
            info["encoding"] = "utf-8"
        return info

    def _tell_info(self, number: int, info: dict[str, Value]) -> None:
        commands = info.get("worker_commands")
        if isinstance(commands, dict):
            self._versions = {name: parse_version(str(version)) for name, version in commands.items()}
        self._master_streams.survives_errors = str(info.get("software", "")).startswith("tailrace ")
        self.emit(Replied(number, info))

    # ------------------------------------------------------------ for the streams

    def answer(self, handle: Handle, value: bytes | None) -> None:
        """Answer a call that a stream took. Buildbot's workers are told 0 for an update, the largest number in it."""
        call = int(handle)
        joined = self._joined.pop(call, None)
        if joined is not None:
            self._broker.answer_all(joined, 0)
            return
        self._broker.answer(call, 0 if call in self._updates else value)
        self._answered(call)

    def fail_call(self, handle: Handle, kind: str, text: str) -> None:
        """Answer a call that a stream did not take."""
        call = int(handle)
        for one in self._joined.pop(call, (call,)):
            self._broker.fail(one, failures.failure(kind, text))
        self._answered(call)

    def _answered(self, call: int) -> None:
        self._updates.discard(call)
        command = self._completing.pop(call, None)
        if command is not None:
            self._revoke(command)


@final
@attrs.frozen
class _Wire:
    """What streams know of a master: see `Answering`."""

    _master: PbMaster

    def answer(self, handle: Handle, value: bytes | None) -> None:
        self._master.answer(handle, value)

    def refuse(self, handle: Handle, kind: str, text: str) -> None:
        self._master.fail_call(handle, kind, text)

    def emit(self, event: Event) -> None:
        self._master.emit(event)


def respond(secret: bytes, challenge: bytes) -> bytes:
    """What proves that one knows the secret: MD5 is what Buildbot has."""
    inner = hashlib.md5(secret, usedforsecurity=False).digest()
    return hashlib.md5(inner + challenge, usedforsecurity=False).digest()
