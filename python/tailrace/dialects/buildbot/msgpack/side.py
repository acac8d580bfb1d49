"""What a master's and a worker's end have in common: requests and responses with their numbers, and the end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from tailrace.dialects.buildbot.msgpack import codec
from tailrace.dialects.buildbot.msgpack.codec import BadMessage, Incoming
from tailrace.dialects.buildbot.msgpack.websocket import ClientSocket, Closed, Message, Pong, ServerSocket
from tailrace.dialects.buildbot.streams import MasterStreams, WorkerStreams
from tailrace.dialects.dialect import Traits
from tailrace.errors import LocalProtocolError, RemoteProtocolError
from tailrace.messages import Called, PeerClosed, Ponged, Replied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace._core import Batch, Journal
    from tailrace.dialects.buildbot.msgpack.websocket import SocketEvent
    from tailrace.messages import Event, Request, Role, Value

SocketT = TypeVar("SocketT", ServerSocket, ClientSocket)
StreamsT = TypeVar("StreamsT", MasterStreams, WorkerStreams)
WaitingT = TypeVar("WaitingT")
AskedT = TypeVar("AskedT")

_NONCE_BYTES = 8


class Side(Generic[SocketT, StreamsT, WaitingT, AskedT]):
    """One end. `WaitingT`: what is remembered of a request of ours, `AskedT`: of the peer's."""

    traits: ClassVar = Traits(
        wire="msgpack",
        offsets=False,
        signals=True,
        worker_makes_builders=False,
        takes_compressed=True,
        # A line is seen well within 50 ms; of a flood nobody sees lines.
        gather_s=0.04,
        flood_s=0.1,
        asks_shutdown=False,
    )
    direct: ClassVar = None
    blocks: ClassVar = None
    compresses: ClassVar = None

    _socket: SocketT
    _streams: StreamsT

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._error: RemoteProtocolError | None = None
        self._number = 0
        self._sequence = 0
        self._waiting: dict[int, WaitingT] = {}
        self._asked: dict[int, tuple[int | None, AskedT]] = {}

    # from the peer

    def receive_data(self, data: bytes | bytearray) -> None:
        self._socket.receive_data(data)

    def receive_eof(self) -> None:
        self._socket.receive_eof()

    # drains

    def next_event(self) -> Event | None:
        while True:
            if self._events:
                return self._events.popleft()
            if self._error is not None:
                raise self._error
            try:
                event = self._socket.next_event()
            except RemoteProtocolError as error:
                self._error = error
                raise
            if event is None:
                return None
            self._on_event(event)

    def data_to_send(self, max_bytes: int) -> bytes:
        return self._socket.data_to_send(max_bytes)

    @property
    def eof_to_send(self) -> bool:
        return self._socket.eof_to_send

    # commands

    def reply(self, call: int, value: Value) -> None:
        sequence, asked = self._asked_for(call)
        if sequence is not None:
            self.respond(sequence, self._result(asked, value))
        del self._asked[call]
        self._replied(asked)

    def fail(self, call: int, type: str, text: str) -> None:  # noqa: A002 - as in the session
        sequence, _ = self._asked_for(call)
        if sequence is not None:
            self.respond_failure(sequence, codec.spoken(type, text))
        del self._asked[call]

    def ping(self, nonce: int) -> None:
        self._socket.ping(nonce.to_bytes(_NONCE_BYTES, "big"))

    def close(self, reason: str, text: str = "") -> None:
        self._socket.close(reason, text)

    # streams

    def open(self, role: Role, name: str, offset: int = 0) -> int:
        del offset  # nothing is resumed on this wire
        return self._streams.open(role, name)

    def room(self, stream: int) -> int:
        return self._streams.room(stream)

    def write(self, stream: int, data: bytes | memoryview) -> None:
        self._streams.write(stream, data)

    def write_journal(self, stream: int, journal: Journal) -> int:
        return self._streams.write_journal(stream, journal)

    def sent(self, stream: int) -> int:
        return self._streams.sent(stream)

    def end(self, stream: int) -> None:
        self._streams.end(stream)

    def reset(self, stream: int, reason: str) -> None:
        self._streams.reset(stream, reason)

    def take(self, stream: int, max_bytes: int) -> Batch | None:
        return self._streams.take(stream, max_bytes)

    def ended(self, stream: int) -> bool:
        return self._streams.ended(stream)

    def settle(self, stream: int, next: int, durable: int) -> None:  # noqa: A002 - as on the wire
        self._streams.settle(stream, next, durable)

    def stop(self, stream: int, reason: str) -> None:
        self._streams.stop(stream, reason)

    # queries

    @property
    def receive_gathers(self) -> int:
        return 0

    @property
    def receive_paused(self) -> bool:
        return False

    def statistics(self) -> Mapping[str, int]:
        socket = self._socket
        return {
            "bytes_sent": socket.bytes_sent,
            "bytes_received": socket.bytes_received,
            "queued": socket.queued,
            "streams": len(self._streams),
            "calls": len(self._waiting) + len(self._asked),
        }

    # for the streams

    def emit(self, event: Event) -> None:
        self._events.append(event)

    # ------------------------------------------------------------ what a side does itself

    def _on_request(self, sequence: int, message: Incoming) -> None:
        """The peer asks. Raises `BadMessage` with the answer, if it cannot be understood."""
        raise NotImplementedError

    def _on_response(self, waiting: WaitingT, sequence: int, value: Value) -> None:
        """The peer answers."""
        raise NotImplementedError

    def _on_failure(self, waiting: WaitingT, sequence: int, text: str) -> None:
        """The peer answers with an error."""
        raise NotImplementedError

    def _on_socket(self, event: SocketEvent) -> None:
        """Something of the handshake."""
        raise NotImplementedError

    def _closed_without_a_word(self) -> PeerClosed:
        return PeerClosed("bye", "")

    def _result(self, asked: AskedT, value: Value) -> Value:
        """What goes out as the answer."""
        return value

    def _replied(self, asked: AskedT) -> None:
        """The answer was sent."""

    # ------------------------------------------------------------ for both

    def _request(self, message: Mapping[str, object], waiting: WaitingT) -> int:
        """Send it. Nothing is changed if it cannot be sent."""
        sequence = self._sequence
        self._socket.send(codec.encode({**message, "seq_number": sequence}))
        self._sequence += 1
        self._waiting[sequence] = waiting
        return sequence

    def respond(self, sequence: int, result: object) -> None:
        """Answer a request of the peer's."""
        message = {"op": "response", "seq_number": sequence, "result": result}
        self._socket.send(codec.encode(message), caused=True)

    def respond_failure(self, sequence: int, text: str) -> None:
        """Answer a request of the peer's: it failed."""
        message = {"op": "response", "seq_number": sequence, "result": text, "is_exception": True}
        self._socket.send(codec.encode(message), caused=True)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _answer_at_once(self, value: Value) -> int:
        """A call of link's that this wire does not carry, and that has an answer all the same."""
        number = self._next_number()
        self._events.append(Replied(number, value))
        return number

    def _called(self, sequence: int | None, request: Request, asked: AskedT) -> None:
        number = self._next_number()
        self._asked[number] = (sequence, asked)
        self._events.append(Called(number, request))

    def _asked_for(self, call: int) -> tuple[int | None, AskedT]:
        try:
            return self._asked[call]
        except KeyError:
            raise LocalProtocolError(f"call {call} waits for no answer") from None

    def _breach(self, text: str) -> None:
        self._error = self._error or self._socket.fail(text)

    def _on_event(self, event: SocketEvent) -> None:
        match event:
            case Message(data):
                self._on_message(data)
            case Pong(data):
                if len(data) == _NONCE_BYTES:
                    self._events.append(Ponged(int.from_bytes(data, "big")))
            case Closed("", _):
                self._events.append(self._closed_without_a_word())
            case Closed(reason, text):
                self._events.append(PeerClosed(reason, text))
            case _:
                self._on_socket(event)

    def _on_message(self, data: bytes) -> None:
        try:
            message = codec.decode(data)
        except RemoteProtocolError as error:
            self._breach(str(error))
            return
        sequence = message.seq_number
        if message.op is None or sequence is None:
            # Buildbot's ends write it to their logs and go on.
            return
        if message.op == "response":
            self._on_answer(sequence, message)
            return
        try:
            self._on_request(sequence, message)
        except BadMessage as error:
            self.respond_failure(sequence, str(error))

    def _on_answer(self, sequence: int, message: Incoming) -> None:
        if sequence not in self._waiting:
            self._breach(f"an answer to the request {sequence}, which nobody made")
            return
        try:
            value = codec.value(message.result)
        except BadMessage as error:
            self._breach(f"an answer that is none: {error}")
            return
        waiting = self._waiting.pop(sequence)
        if codec.is_exception(message):
            self._on_failure(waiting, sequence, value if isinstance(value, str) else repr(value))
        else:
            self._on_response(waiting, sequence, value)
