"""The WebSocket below the messages: handshake with HTTP Basic, binary messages, ping, close. Sans-IO.

It is the sans-IO part of `websockets` with what is particular here around it. No extension, no subprotocol; text
messages are ignored, as Buildbot's ends do.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from tailrace.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from websockets.datastructures import Headers
    from websockets.protocol import Protocol

MESSAGE_BYTES_MAX: Final = 80 << 20
"""The largest message that is taken: one line of 16 Mi characters (`LINE_LENGTH_MAX` of the codec) and its frame."""

ANSWERS_BYTES_MAX: Final = 64 << 20
"""How much a peer may have caused us to send without taking it: it reads nothing and asks on and on."""

_CLOSE_TEXT_BYTES_MAX: Final = 123
_ID: Final = "Tailrace-Id"
_PAGE: Final = "<html><body><p>This is a Tailrace master. Workers come here by WebSocket.</p></body></html>\n"
_REFUSAL: Final = re.compile(r"(credentials|duplicate|not now|rejected|draining|version): (.*)", re.DOTALL)

# The library's own loggers print whole messages when they are asked to, and with them secrets.
_SILENT: Final = logging.Logger("tailrace.websocket", logging.CRITICAL + 1)


@final
@attrs.frozen(kw_only=True)
class Asked:
    """At the server: somebody wants in. Answer with `admit` or `refuse`. `peer`: its id, if it is one of ours."""

    name: str
    password: bytes
    peer: str
    software: str


@final
@attrs.frozen(kw_only=True)
class Opened:
    """At the client: the handshake is done."""

    peer: str
    software: str


@final
@attrs.frozen
class Denied:
    """At the client: the handshake was refused."""

    reason: str
    text: str


@final
@attrs.frozen
class Message:
    """One binary message."""

    data: bytes


@final
@attrs.frozen
class Pong:
    """The answer to a ping of ours."""

    data: bytes


@final
@attrs.frozen
class Closed:
    """The peer closed; `reason` is `eof` when its transport ended without a word, empty when it gave none."""

    reason: str
    text: str


SocketEvent: TypeAlias = Asked | Opened | Denied | Message | Pong | Closed


class _Socket:
    """What both sides have in common. After `receive_*` and every command: `next_event` and `data_to_send`."""

    def __init__(self, protocol: Protocol) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0
        self.queued = 0
        self._protocol = protocol
        self._events: deque[SocketEvent] = deque()
        self._writes: deque[bytes] = deque()
        self._caused = 0
        self._parts: list[bytes] | None = None
        self._error: RemoteProtocolError | None = None
        self._closed = False

    @property
    def eof_to_send(self) -> bool:
        """Close the transport once everything is sent."""
        return self._closed

    def receive_data(self, data: bytes | bytearray) -> None:
        self.bytes_received += len(data)
        if self._closed or self._error is not None:
            return
        self._protocol.receive_data(data)
        self._take_events()

    def receive_eof(self) -> None:
        if self._closed or self._error is not None:
            return
        self._protocol.receive_eof()
        self._take_events()
        if not self._closed and self._error is None:
            self._end(Closed("eof", ""))

    def next_event(self) -> SocketEvent | None:
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None

    def data_to_send(self, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        count = 0
        while self._writes and count < max_bytes:
            part = self._writes.popleft()
            if count + len(part) > max_bytes:
                self._writes.appendleft(part[max_bytes - count :])
                part = part[: max_bytes - count]
            parts.append(part)
            count += len(part)
        self.queued -= count
        self.bytes_sent += count
        self._caused = 0 if not self.queued else self._caused
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def send(self, data: bytes, *, caused: bool = False) -> None:
        """One binary message. `caused`: the peer asked for it."""
        if self._closed or self._error is not None or self._protocol.state is not State.OPEN:
            return
        self._protocol.send_binary(data)
        self._collect(caused=caused)

    def ping(self, data: bytes) -> None:
        if not self._closed and self._protocol.state is State.OPEN:
            self._protocol.send_ping(data)
            self._collect(caused=False)

    def close(self, reason: str, text: str) -> None:
        """Say why, and be over."""
        if self._closed:
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000, _close_text(reason, text))
            self._collect(caused=False)
        self._closed = True

    def fail(self, text: str) -> RemoteProtocolError:
        """The peer broke the protocol: an error for `next_event`, after what came before it."""
        if self._error is None:
            self._error = RemoteProtocolError(text)
            if self._protocol.state is State.OPEN:
                self._protocol.fail(1002, _cut(text))
            self._collect(caused=False)
            self._closed = True
        return self._error

    def _take_events(self) -> None:
        self._collect(caused=True)
        for event in self._protocol.events_received():
            if self._error is not None or self._closed:
                return
            if isinstance(event, Frame):
                self._on_frame(event)
            else:
                self._on_handshake(event)
        if self._protocol.parser_exc is not None and not isinstance(self._protocol.parser_exc, EOFError):
            self.fail(f"WebSocket: {self._protocol.parser_exc}")
        elif self._caused > ANSWERS_BYTES_MAX:
            self.fail(f"it asks on and on, and has not taken {self._caused} bytes of answers")

    def _on_frame(self, frame: Frame) -> None:
        if self._protocol.state is State.CONNECTING:
            self._events.clear()
            self.fail("it speaks before it was let in")
        elif frame.opcode is Opcode.PONG:
            self._events.append(Pong(bytes(frame.data)))
        elif frame.opcode is Opcode.CLOSE:
            self._end(_closed(self._protocol.close_rcvd))
        elif frame.opcode is not Opcode.PING:
            self._on_data(frame)

    def _on_data(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._parts = None
        elif frame.opcode is Opcode.BINARY:
            self._parts = []
        if self._parts is None:
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            parts, self._parts = self._parts, None
            self._events.append(Message(b"".join(parts) if len(parts) > 1 else parts[0]))

    def _on_handshake(self, event: Request | Response) -> None:
        raise NotImplementedError

    def _check_handshake(self, why: Exception | None) -> None:
        if why is None or self._error is not None or self._closed:
            return
        if isinstance(why.__cause__, EOFError):
            self._end(Closed("eof", ""))
        else:
            self.fail(f"no WebSocket: {why}")

    def _end(self, closed: Closed) -> None:
        self._closed = True
        self._events.append(closed)

    def _collect(self, *, caused: bool) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writes.append(data)
                self.queued += len(data)
                self._caused += len(data) if caused else 0


@final
class ServerSocket(_Socket):
    """The master's end."""

    def __init__(self, *, id: str, software: str) -> None:  # noqa: A002 - as in the dialect
        self._server = ServerProtocol(max_size=MESSAGE_BYTES_MAX, logger=_SILENT)
        super().__init__(self._server)
        self._id = id
        self._software = software
        self._accepted: Response | None = None

    def admit(self) -> bool:
        """After `Asked`: the worker is let in, if it is still there."""
        if self._closed or self._error is not None or self._accepted is None:
            return False
        self._accepted.headers["Server"] = _header(self._software)
        self._accepted.headers[_ID] = _header(self._id)
        self._server.send_response(self._accepted)
        self._collect(caused=False)
        return True

    def refuse(self, status: int, reason: str, text: str) -> None:
        """After `Asked`, or instead of it."""
        if not self._closed and self._error is None:
            self._respond(status, f"{reason}: {text}\n")

    def close(self, reason: str, text: str) -> None:
        if self._protocol.state is State.CONNECTING and self._accepted is not None:
            self.refuse(503, reason, text)
        super().close(reason, text)

    def _take_events(self) -> None:
        super()._take_events()
        self._check_handshake(self._server.handshake_exc)

    def _on_handshake(self, event: Request | Response) -> None:
        assert isinstance(event, Request)
        if self._server.reader.buffer or self._server.eof_sent:
            self.fail("it speaks before it was let in")
        elif "Upgrade" not in event.headers:
            self._respond(200, _PAGE)
            self.fail("a plain HTTP request")
        else:
            self._on_upgrade(event)

    def _on_upgrade(self, request: Request) -> None:
        given = request.headers.get_all("Authorization")
        if not given:
            self.refuse(401, "credentials", "who are you?")
            self.fail("a login without credentials")
            return
        credentials = _credentials(given[0])
        if credentials is None:
            self.refuse(400, "rejected", "the credentials cannot be read")
            self.fail("credentials that cannot be read")
            return
        response = self._server.accept(request)
        if response.status_code != 101:
            self._send_response(response)
            self.fail(f"no WebSocket handshake: {self._server.handshake_exc}")
            return
        self._accepted = response
        name, password = credentials
        agent, peer = _first(request.headers, "User-Agent"), _first(request.headers, _ID)
        self._events.append(Asked(name=name, password=password, peer=peer, software=agent))

    def _respond(self, status: int, text: str) -> None:
        response = self._server.reject(status, text)
        if text is _PAGE:
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "text/html; charset=utf-8"
        self._send_response(response)

    def _send_response(self, response: Response) -> None:
        self._server.send_response(response)
        self._collect(caused=False)
        self._closed = True


@final
class ClientSocket(_Socket):
    """The worker's end."""

    def __init__(self, *, host: str, name: str, password: bytes, id: str, software: str) -> None:  # noqa: A002
        if ":" in name:
            raise LocalProtocolError(f"on this wire the name of a worker has no colon: {name!r}")
        client = ClientProtocol(
            WebSocketURI(secure=False, host="localhost", port=80, path="/", query=""),
            max_size=MESSAGE_BYTES_MAX,
            logger=_SILENT,
        )
        super().__init__(client)
        self._client = client
        request = client.connect()
        if host:
            del request.headers["Host"]
            request.headers["Host"] = host
        request.headers["User-Agent"] = _header(software)
        request.headers[_ID] = _header(id)
        request.headers["Authorization"] = "Basic " + base64.b64encode(name.encode() + b":" + password).decode()
        client.send_request(request)
        self._collect(caused=False)

    def _take_events(self) -> None:
        super()._take_events()
        self._check_handshake(self._client.handshake_exc)

    def _on_handshake(self, event: Request | Response) -> None:
        assert isinstance(event, Response)
        if self._client.handshake_exc is None:
            peer, software = _first(event.headers, _ID), _first(event.headers, "Server")
            self._events.append(Opened(peer=peer, software=software))
        elif isinstance(self._client.handshake_exc, InvalidStatus):
            self._events.append(_denied(event))
            self._closed = True


def _first(headers: Headers, name: str) -> str:
    """What it says there; what it says twice counts once."""
    return next(iter(headers.get_all(name)), "")


def _credentials(header: str) -> tuple[str, bytes] | None:
    if not header.startswith("Basic "):
        return None
    try:
        name, colon, password = base64.b64decode(header[6:].strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def _denied(response: Response) -> Denied:
    text = bytes(response.body).decode("utf-8", "replace").strip()
    if (said := _REFUSAL.fullmatch(text)) is not None:
        return Denied(said[1], said[2])
    if response.status_code == 401:
        return Denied("credentials", "unknown worker or wrong password")
    return Denied("rejected", f"HTTP {response.status_code} {response.reason_phrase}")


def _closed(close: Close | None) -> Closed:
    """Ours say why, as `reason: text`."""
    if close is None or close.code == 1005:
        return Closed("", "")
    reason, colon, text = close.reason.partition(": ")
    if close.code == 1000:
        return Closed(reason or "bye", text) if colon or not close.reason else Closed("bye", close.reason)
    return Closed("protocol", close.reason or f"WebSocket close code {close.code}")


def _close_text(reason: str, text: str) -> str:
    return _cut(f"{reason}: {text}" if text or reason != "bye" else "")


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace")[:_CLOSE_TEXT_BYTES_MAX].decode("utf-8", "ignore")


def _header(text: str) -> str:
    """One line of ASCII."""
    return "".join(char for char in text if " " <= char <= "~")
