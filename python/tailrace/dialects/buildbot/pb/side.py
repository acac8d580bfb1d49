"""One side of Perspective Broker as a dialect: what `master.py` and `worker.py` have in common."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from tailrace._core import BananaDecoder
from tailrace.dialects.buildbot.pb import failures
from tailrace.dialects.buildbot.pb.broker import Answered, Broker, Called, Failed, Output
from tailrace.dialects.dialect import Traits
from tailrace.errors import RemoteProtocolError
from tailrace.messages import CallFailed, PeerClosed, Ponged, Replied

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tailrace.dialects.buildbot.pb.broker import Message
    from tailrace.dialects.buildbot.pb.jelly import Failure
    from tailrace.dialects.buildbot.streams import MasterStreams, WorkerStreams
    from tailrace.messages import Event, Request, Role, Value

TRAITS: Final = Traits(
    wire="pb",
    offsets=False,
    signals=False,
    worker_makes_builders=True,
    one_command_per_builder=True,
    takes_compressed=True,
    # A line is seen well within 50 ms; of a flood nobody sees lines.
    gather_s=0.04,
    flood_s=0.1,
    asks_shutdown=True,
)
# Calls of the peer's that `link` has not answered. Those of streams are bounded by their bytes.
CALLS_MAX: Final = 10_000

OnAnswer: TypeAlias = "Callable[[object], None]"
OnFailure: TypeAlias = "Callable[[Failure], None]"


class Side:
    """One side of a connection. See `Dialect`."""

    traits: ClassVar[Traits] = TRAITS
    blocks: ClassVar = None
    compresses: ClassVar = None

    def __init__(self, broker: Broker, streams: MasterStreams | WorkerStreams) -> None:
        self._broker = broker
        self._streams = streams
        self._events: deque[Event] = deque()
        self._error: RemoteProtocolError | None = None
        self._closing = self._eof = False
        self._numbers = 0
        self._answers: dict[int, tuple[OnAnswer, OnFailure]] = {}
        # Calls of the peer's that `link` has to answer: our number → (theirs, what it asks for).
        self._asked: dict[int, tuple[int, Request]] = {}
        self._bytes_received = self._bytes_sent = 0
        # What needs no conversion is the streams' own method.
        self.room = streams.room
        self.write = streams.write
        self.write_journal = streams.write_journal
        self.sent = streams.sent
        self.end = streams.end
        self.reset = streams.reset
        self.take = streams.take
        self.ended = streams.ended
        self.stop = streams.stop
        self.settle = streams.settle

    # ------------------------------------------------------------ from the peer

    def receive_data(self, data: bytes | bytearray) -> None:
        self._bytes_received += len(data)
        if not self._closing:
            self._broker.receive_data(data)

    def receive_from(self, fd: int, max_bytes: int) -> int | None:
        """See `Direct`."""
        if self._closing:
            # To be forgotten.
            return BananaDecoder().receive_from(fd, max_bytes)
        count = self._broker.receive_from(fd, max_bytes)
        self._bytes_received += count or 0
        return count

    def receive_eof(self) -> None:
        self._eof = True

    def next_event(self) -> Event | None:
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._closing:
                return None
            try:
                message = self._broker.next_message()
                if message is None:
                    break
                self._handle(message)
            except RemoteProtocolError as error:
                self._error = error
                self._closing = True
        if self._events:
            return self._events.popleft()
        if self._eof:
            self._closing = True
            return self._ended_by_peer()
        return None

    def _handle(self, message: Message) -> None:
        match message:
            case Output():
                self._take_output(message)
            case Called():
                self._serve(message)
            case Answered(call, value):
                on_answer, _ = self._answers.pop(call)
                try:
                    on_answer(value)
                except (TypeError, ValueError) as error:
                    raise RemoteProtocolError(f"an answer that is none: {error}") from error
            case Failed(call, failed):
                _, on_failure = self._answers.pop(call)
                on_failure(failed)

    def _serve(self, called: Called) -> None:
        try:
            self._called(called)
        except failures.NoSuchMethodError as error:
            self._broker.fail(called.call, error.failure)
        except (TypeError, ValueError) as error:
            self._broker.fail(called.call, failures.failure(type(error).__name__, str(error)[:1000]))

    def _called(self, called: Called) -> None:
        """The peer calls. `TypeError` and `ValueError` fail the call."""
        raise NotImplementedError

    def _take_output(self, output: Output) -> None:
        """The peer calls `update`. Only masters are called so."""
        raise NotImplementedError

    def _ended_by_peer(self) -> Event:
        return PeerClosed("eof", "")

    # ------------------------------------------------------------ to the peer

    def data_to_send(self, max_bytes: int) -> bytes:
        data = self._broker.data_to_send(max_bytes)
        self._bytes_sent += len(data)
        return data

    @property
    def direct(self) -> Side:
        return self

    def send_to(self, fd: int, max_bytes: int) -> bool:
        """See `Direct`."""
        self._bytes_sent += self._broker.send_to(fd, max_bytes)
        return not self._broker.to_send

    @property
    def eof_to_send(self) -> bool:
        return self._closing

    def open(self, role: Role, name: str, offset: int = 0) -> int:
        del offset  # nothing is resumed on this wire
        return self._streams.open(role, name)

    def fail(self, call: int, type: str, text: str) -> None:  # noqa: A002 - as in the session
        their, _request = self._asked.pop(call)
        self._broker.fail(their, failures.failure(type, text))

    # ------------------------------------------------------------ calls

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _ask_link(self, their: int, request: Request) -> int:
        """Have `link` answer a call of the peer's."""
        if len(self._asked) >= CALLS_MAX:
            raise RemoteProtocolError(f"more than {CALLS_MAX} calls that wait for an answer")
        number = self._next_number()
        self._asked[number] = (their, request)
        return number

    def _expect(self, call: int, on_answer: OnAnswer, on_failure: OnFailure) -> None:
        self._answers[call] = (on_answer, on_failure)

    def _expect_reply(self, call: int, number: int, decode: Callable[[object], Value]) -> None:
        """The answer to `call` is the answer to link's call `number`."""
        self._expect(
            call,
            lambda value: self.emit(Replied(number, decode(value))),
            lambda failed: self.emit(CallFailed(number, *failures.describe(failed))),
        )

    def _expect_pong(self, call: int, nonce: int) -> None:
        """Whatever the peer answers, it lives."""
        self._expect(call, lambda value: self.emit(Ponged(nonce)), lambda failed: self.emit(Ponged(nonce)))

    # ------------------------------------------------------------ for the streams

    def emit(self, event: Event) -> None:
        """Tell `link`."""
        self._events.append(event)

    # ------------------------------------------------------------ queries

    def statistics(self) -> Mapping[str, int]:
        return {
            "bytes_sent": self._bytes_sent,
            "bytes_received": self._bytes_received,
            "queued": self._broker.queued,
            "streams": len(self._streams),
            "calls": len(self._answers) + len(self._asked),
        }
