"""What every wire does for `link`, and what a wire may be unable to say.

A dialect is sans-IO: bytes in, messages out, and back. It knows no socket, no clock and no task. Its methods are of
four kinds: queries; `receive_*`, what came from the peer; commands, what we want to say; and drains, `next_event` and
`data_to_send`. After any of the middle two, drain.

Everything that grows is a stream, named by (role, command id): a journal, an upload, a download. A wire without streams
makes them of its calls: what an `update` call brings is taken like any other journal, and settling it is the answer.

A wire without `Held` makes it of its login. At the master it follows `LoggedIn` by itself, and its answer says that the
worker is taken; at the worker its answer comes when the master has done that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tailrace._core import Batch, Block, Journal
    from tailrace.limits import Limits
    from tailrace.messages import Event, Request, Role, Value


@final
@attrs.frozen(kw_only=True)
class Traits:
    """What a wire can carry."""

    wire: str
    """Its name in endpoints, without `+tls`."""

    offsets: bool
    """Journals are addressed by absolute offset on the wire, and end with a receipt."""

    resumes: bool = False
    """What a broken connection held goes on over the next one: streams at an offset, calls that may be said twice."""

    signals: bool
    """A command that ended by a signal says by which."""

    worker_makes_builders: bool
    """`SetBuilderList` makes directories at the worker. If not, the master does it with commands, whose builder is
    `""`, and `SetBuilderList` only tells the dialect."""

    one_command_per_builder: bool = False
    """A builder that is given a second command kills its first."""

    takes_compressed: bool
    """Masters of this wire undo the compression of an uploaded directory themselves, if they have asked for it."""

    gather_s: float = 0.004
    """How long output may gather before it is read, where `receive_gathers`."""

    flood_s: float = 0.004
    """The same in a flood: once what had gathered was much."""

    asks_shutdown: bool
    """A worker can ask its master for an end (`AskShutdown`)."""


Clock: TypeAlias = "Callable[[], tuple[int, int]]"
"""Wall and monotonic time in microseconds, for what arrives without a time."""


class MakeDialect(Protocol):
    """The class of a dialect. What a wire has no use for it ignores.

    `id` is the master's or the worker's; `host` is who is dialled, as `host:port`.
    """

    def __call__(
        self,
        role: Literal["master", "worker"],
        /,
        *,
        id: str,  # noqa: A002 - the session's name for it
        nonce: bytes,
        limits: Limits,
        clock: Clock,
        host: str = "",
        name: str = "",
        secret: bytes = b"",
        software: str = "",
    ) -> Dialect: ...


class Direct(Protocol):
    """A wire that moves its bytes from and to a socket by itself. `OSError` is what is wrong with the socket.

    It knows no socket for all that: it is given the number of one, that does not block, each time.
    """

    def receive_from(self, fd: int, max_bytes: int, /) -> int | None:
        """As `receive_data` with what there is, at most about so much; how much it was. 0: the peer will send no more;
        `None`: there is nothing yet."""

    def send_to(self, fd: int, max_bytes: int, /) -> bool:
        """Sends what `data_to_send` would give, at most about so much. False: there is more, or the socket is full.

        What tells the peer nothing that it needs to know yet may wait, and goes along with what is sent next.
        """


class TakesBlocks(Protocol):
    """A wire that takes blocks of a file as they are."""

    def write_block(self, stream: int, block: Block, start: int = 0, /) -> None:
        """As `write`, of a block from `start` on: all of it and without a copy, if there is any room."""


class Compresses(Protocol):
    """A wire that compresses what streams carry. It is up to its user when, as the wire knows no time."""

    def compress(self, level: int, bytes: int, /) -> None:  # noqa: A002 - as in the session
        """The next so many bytes of streams go compressed, if the peer welcomes that."""

    def welcome_compressed(self, welcome: bool, /) -> None:
        """Tell the peer whether it may send so."""

    @property
    def is_held(self) -> bool:
        """Bytes of streams wait until the peer lets more through."""

    def statistics(self) -> Mapping[str, int]:
        """As the dialect's, with `unsettled`: bytes of streams that came and were not settled."""


class Dialect(Protocol):
    """One side of one connection."""

    traits: ClassVar[Traits]

    @property
    def direct(self) -> Direct | None:
        """Moves bytes without an object for them. `None`: this wire cannot."""

    @property
    def blocks(self) -> TakesBlocks | None:
        """Takes blocks of a file as they are. `None`: this wire cannot."""

    @property
    def compresses(self) -> Compresses | None:
        """Compresses where it pays. `None`: this wire cannot, or must not."""

    # from the peer: never raises for what the peer did
    def receive_data(self, data: bytes | bytearray, /) -> None:
        """Bytes that arrived."""

    def receive_eof(self) -> None:
        """The peer will send no more."""

    # drains
    def next_event(self) -> Event | None:
        """The next thing that the peer said; `None`: nothing more yet.

        Raises:
            RemoteProtocolError: the peer broke the protocol. In order with the events, and for ever after.
        """

    def data_to_send(self, max_bytes: int, /) -> bytes:
        """What the peer is to get, at most so much; `b""`: nothing now."""

    @property
    def eof_to_send(self) -> bool:
        """Close the transport once `data_to_send` is empty."""

    # commands: LocalProtocolError before any byte is made
    def admit(self, secret: bytes, /) -> bool:
        """At the master, after `LoginAsked`: the worker's secret. Whether its proof is right; else it is refused."""

    def refuse(self, reason: str, text: str, /) -> None:
        """At the master: it is not let in."""

    def call(self, request: Request, /) -> int:
        """Call the peer's method. `Replied` or `CallFailed` comes with this number."""

    def reply(self, call: int, value: Value, /) -> None:
        """Answer a call of the peer."""

    def fail(self, call: int, type: str, text: str, /) -> None:  # noqa: A002 - as in the session
        """Answer a call of the peer: it raised."""

    def ping(self, nonce: int, /) -> None:
        """Ask for a sign of life."""

    def close(self, reason: str, text: str = "", /) -> None:
        """Say why we close. Nothing can be sent after it."""

    # streams that we send
    def open(self, role: Role, name: str, offset: int = 0, /) -> int:
        """Begin a stream, or go on with one that another session began, at `offset`. It has its number from here on."""

    def room(self, stream: int, /) -> int:
        """How many bytes may be written now; after 0 wait for `StreamWritable`."""

    def write(self, stream: int, data: bytes | memoryview, /) -> None:
        """Records or parts of them, at most `room` bytes."""

    def write_journal(self, stream: int, journal: Journal, /) -> int:
        """What this journal has, from where the stream stands, is to be sent. How many bytes are new to the stream.

        It may take what fits, or all, and what it grows by. After 0 wait for more; while `room` is 0 for
        `StreamWritable`.
        """

    def sent(self, stream: int, /) -> int:
        """The offset up to which bytes were written."""

    def end(self, stream: int, /) -> None:
        """All of it was written. `StreamProgress` with `done` says when the peer has it safe."""

    def reset(self, stream: int, reason: str, /) -> None:
        """Give up."""

    # streams that we receive
    def take(self, stream: int, max_bytes: int, /) -> Batch | None:
        """Whole records that have arrived; `None`: nothing now. More comes with `StreamReadable`."""

    def ended(self, stream: int, /) -> bool:
        """The sender ended it, and everything was taken."""

    def settle(self, stream: int, next: int, durable: int, /) -> None:  # noqa: A002 - as on the wire
        """It was taken up to `next` and is safe up to `durable`: credit, or an answer."""

    def stop(self, stream: int, reason: str, /) -> None:
        """Ask the sender to give up."""

    # queries
    @property
    def receive_paused(self) -> bool:
        """Read no more for now: what has come is not taken. Asked again after each `settle`."""

    @property
    def receive_gathers(self) -> int:
        """What comes next is likely more output, which nobody waits for to be answered: it may be read when there are
        so many bytes of it. 0: it is for now. More than the peer sends unasked would be waited for in vain."""

    def statistics(self) -> Mapping[str, int]:
        """Counters: `bytes_sent`, `bytes_received`, `queued`, `streams`, `calls`."""
