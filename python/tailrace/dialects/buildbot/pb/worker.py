"""The worker's side of Perspective Broker: it logs in, and serves the master's calls on its objects.

A master calls the worker before it answers the login. So the first call says that the login succeeded, and the answer,
which comes when the master is done with it, that the worker is attached.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

import attrs

from tailrace.dialects.buildbot.calls import Complete, Item, Text, Update
from tailrace.dialects.buildbot.lines import LineStyle
from tailrace.dialects.buildbot.pb import codec, failures
from tailrace.dialects.buildbot.pb.broker import ROOT, Broker
from tailrace.dialects.buildbot.pb.jelly import Failure, Remote
from tailrace.dialects.buildbot.pb.master import respond
from tailrace.dialects.buildbot.pb.objects import (
    Bot,
    CommandObject,
    ReaderObject,
    WorkerBuilder,
    WriterObject,
)
from tailrace.dialects.buildbot.pb.side import Side
from tailrace.dialects.buildbot.streams import Style, WorkerStreams
from tailrace.errors import LocalProtocolError
from tailrace.messages import (
    AskShutdown,
    Called,
    GetWorkerInfo,
    Held,
    LoggedIn,
    PeerClosed,
    Refused,
    Replied,
    SetBuilderList,
    StartCommand,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailrace.dialects.buildbot.calls import Call, Element
    from tailrace.dialects.buildbot.pb import broker
    from tailrace.dialects.buildbot.pb.objects import MasterObject
    from tailrace.limits import Limits
    from tailrace.messages import Request, Value

# A character is at most four bytes, and a string of banana at most 640 KiB.
TEXT_CHARS_MAX: Final = 160 * 1024
# What ends a line for Buildbot's workers: carriage returns, jumps of the cursor, runs of backspaces.
SEPARATOR: Final = re.compile("\r\n|\r(?=.)|\x1b\\[(?:u|2J|[0-9]+;[0-9]+[Hf])|\b+")
STYLE: Final = Style(
    lines=LineStyle(separator=SEPARATOR, timed=False), text_chars_max=TEXT_CHARS_MAX, text_chars_limit=TEXT_CHARS_MAX
)


@final
@attrs.frozen
class _Objects:
    """What the master gave for one command."""

    command: Remote
    writer: Remote | None
    reader: Remote | None


@final
class PbWorker(Side):
    """A worker's connection to its master. See `Dialect`."""

    receive_paused = False
    receive_gathers = 0

    def __init__(self, *, limits: Limits, host: str, name: str, secret: bytes, software: str) -> None:
        style = attrs.evolve(STYLE, window_bytes=limits.stream_window_bytes)
        streams = WorkerStreams(self, style)
        self._worker_streams = streams
        super().__init__(Broker("client"), streams)
        self._peer = host or "pb"
        self._secret = secret
        self._software = software
        self._perspective: Remote | None = None
        self._logged_in = False
        self._held: int | None = None
        self._objects: dict[str, _Objects] = {}
        self._builders: frozenset[str] = frozenset()
        call = self._broker.call(ROOT, "login", name.encode())
        self._expect(call, self._challenged, self._refused)

    # ------------------------------------------------------------ the login

    def _challenged(self, value: object) -> None:
        match value:
            case (bytes(challenge), Remote() as challenger):
                response = respond(self._secret, challenge)
                call = self._broker.call(challenger, "respond", response, self._broker.export(Bot()))
                self._expect(call, self._let_in, self._refused)
            case _:
                raise TypeError("login answers with a challenge and an object")

    def _let_in(self, value: object) -> None:
        if not isinstance(value, Remote):
            raise TypeError("the login answers with an object")
        self._broker.keep(value)
        self._perspective = value
        self._log_in()
        if self._held is not None:
            self.emit(Replied(self._held, None))

    def _log_in(self) -> None:
        if not self._logged_in:
            self._logged_in = True
            self.emit(LoggedIn(peer=self._peer, software=""))

    def _refused(self, failed: Failure) -> None:
        reason, text = failures.describe_refusal(failed)
        if self._logged_in:
            # It had begun to talk to us.
            self.emit(PeerClosed("rejected" if reason == "credentials" else reason, text))
        else:
            self.emit(Refused(reason, text))
        self._closing = True

    def admit(self, secret: bytes) -> bool:
        raise LocalProtocolError("a worker lets nobody in")

    def refuse(self, reason: str, text: str) -> None:
        raise LocalProtocolError("a worker lets nobody in")

    def close(self, reason: str, text: str = "") -> None:
        # There is no goodbye on this wire.
        self._closing = True

    # ------------------------------------------------------------ from the master

    def _called(self, called: broker.Called) -> None:
        target = called.target
        self._log_in()
        if isinstance(target, WorkerBuilder):
            served = codec.decode_builder(target.name, called.method, called.args, called.kwargs)
        elif isinstance(target, Bot):
            served = codec.decode_bot(called.method, called.args, called.kwargs)
        else:
            raise failures.NoSuchMethodError(target, called.method)
        match served:
            case None:
                self._broker.answer(called.call, None)
            case str():
                self._broker.answer(called.call, self._software)
            case codec.Start():
                self._serve_start(called.call, served)
            case _:
                self.emit(Called(self._ask_link(called.call, served), served))

    def _serve_start(self, call: int, start: codec.Start) -> None:
        command = start.request.command
        if command in self._objects:
            self._broker.fail(call, failures.failure("CommandIdInUse", f"command {command!r} is still there"))
            return
        for reference in (start.command, start.writer, start.reader):
            if reference is not None:
                self._broker.keep(reference)
        self._objects[command] = _Objects(start.command, start.writer, start.reader)
        number = self._ask_link(call, start.request)
        self.emit(Called(number, start.request))

    def reply(self, call: int, value: Value) -> None:
        their, request = self._asked[call]
        match request:
            case SetBuilderList():
                self._broker.answer(their, self._set_builders(value))
            case GetWorkerInfo():
                self._broker.answer(their, self._with_encoding(value))
            case _:
                self._broker.answer(their, value)
        del self._asked[call]
        if isinstance(request, StartCommand):
            self._worker_streams.accepted(request.command, reads="FileReader" in request.impls.values())

    def _with_encoding(self, info: Value) -> Value:
        """Output crosses as text: its encoding matters on this side only."""
        if not isinstance(info, Mapping) or not isinstance(encoding := info.get("encoding"), str):
            return info
        with contextlib.suppress(LookupError):
            codecs.lookup(encoding)
            self._worker_streams.style = attrs.evolve(self._worker_streams.style, encoding=encoding)
        return {**info, "encoding": "utf-8"}

    def fail(self, call: int, type: str, text: str) -> None:  # noqa: A002 - as in the session
        _their, request = self._asked[call]
        super().fail(call, type, text)
        if isinstance(request, StartCommand):
            self._release(request.command)

    def _set_builders(self, names: Value) -> dict[str, Remote]:
        assert isinstance(names, list | tuple)
        wanted = frozenset(map(str, names))
        for name in self._builders - wanted:
            self._broker.revoke(WorkerBuilder(name))
        self._builders = wanted
        return {name: self._broker.export(WorkerBuilder(name)) for name in map(str, names)}

    # ------------------------------------------------------------ to the master

    def call(self, request: Request) -> int:
        number = self._next_number()
        match request:
            case Held():
                self._held = number
                if self._perspective is not None:
                    self.emit(Replied(number, None))
            case AskShutdown():
                call = self._broker.call(self._attached(), "shutdown")
                self._expect_reply(call, number, lambda value: None)
            case _:
                raise LocalProtocolError(f"a worker does not call {type(request).__name__}")
        return number

    def ping(self, nonce: int) -> None:
        # Before the login is answered there is nobody to call but the root, which knows no such thing, and says so.
        self._expect_pong(self._broker.call(self._perspective or ROOT, "keepalive"), nonce)

    def _attached(self) -> Remote:
        if self._perspective is None:
            raise LocalProtocolError("the login is not answered yet")
        return self._perspective

    # ------------------------------------------------------------ for the streams

    def send(self, call: Call) -> int:
        """See `Calling`."""
        handle = self._send(call)
        ends = isinstance(call, Complete)

        def on_answer(value: object) -> None:
            if ends:
                self._release(call.command)
            self._worker_streams.answered(handle, codec.as_value(value))

        def on_failure(failed: Failure) -> None:
            if ends:
                self._release(call.command)
            self._worker_streams.failed(handle, *failures.describe(failed))

        self._expect(handle, on_answer, on_failure)
        return handle

    def _send(self, call: Call) -> int:
        kind, method, args = codec.encode_call(call)
        target = self._object(kind, call.command)
        try:
            return self._broker.call(target, method, *args)
        except LocalProtocolError as error:
            if not isinstance(call, Update):
                raise
            # One element is too large for this wire: it must not keep the others from their master.
            return self._broker.call(target, method, self._fitting(call.elements, error))

    def _fitting(self, elements: Sequence[Element], error: LocalProtocolError) -> list[object]:
        fitting: list[object] = []
        for element in elements:
            encoded = codec.encode_elements((element,))
            try:
                self._broker.check(encoded)
            except LocalProtocolError:
                what = element.key if isinstance(element, Item) else element.channel
                encoded = codec.encode_elements(
                    (Text("header", None, f"{what} cannot be sent to the master: {error}\n"),)
                )
            fitting.extend(encoded)
        return fitting

    def _object(self, kind: type[MasterObject], command: str) -> Remote:
        objects = self._objects.get(command)
        if objects is None:
            raise LocalProtocolError(f"there is no command {command!r}")
        reference = {CommandObject: objects.command, WriterObject: objects.writer, ReaderObject: objects.reader}[kind]
        if reference is None:
            raise LocalProtocolError(f"command {command!r} has no {kind.__name__}")
        return reference

    def _release(self, command: str) -> None:
        """A real master exports 1,024 objects at most: what a command needed is given back with its end."""
        objects = self._objects.pop(command, None)
        if objects is not None:
            for reference in (objects.command, objects.writer, objects.reader):
                if reference is not None:
                    self._broker.release(reference)
