"""The native wire: the Rust session, with calls as messages."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, assert_never, final

import tailrace._core as _core
from tailrace.dialects.dialect import Traits
from tailrace.dialects.native.codec import decode_request, encode_request
from tailrace.errors import RemoteProtocolError, Unsupported
from tailrace.messages import (
    Called,
    CallFailed,
    LoggedIn,
    LoginAsked,
    PeerClosed,
    Ponged,
    Refused,
    Replied,
    StreamOpened,
    StreamProgress,
    StreamReadable,
    StreamReset,
    StreamStopped,
    StreamWritable,
)

if TYPE_CHECKING:
    from tailrace.dialects.dialect import Clock
    from tailrace.limits import Limits
    from tailrace.messages import Event, Request, Role

# More is not worth waiting for.
GATHER_BYTES = 1 << 20
GATHER_BYTES_MIN = 1 << 18
# The capability of a side that takes compressed bytes (PROTOCOL.md section 5).
ZSTD = "zstd"

Side: TypeAlias = Literal["master", "worker"]


@final
class NativeDialect:
    """One side of a connection on the native wire. See `Dialect`."""

    traits: ClassVar[Traits] = Traits(
        wire="tailrace",
        offsets=True,
        resumes=True,
        signals=True,
        worker_makes_builders=True,
        takes_compressed=False,
        asks_shutdown=False,
    )

    def __init__(
        self,
        role: Side,
        *,
        id: str,  # noqa: A002 - the session's name for it
        nonce: bytes,
        limits: Limits,
        clock: Clock | None = None,
        host: str = "",
        name: str = "",
        secret: bytes = b"",
        software: str = "",
    ) -> None:
        # Its records bring their times, and its bytes do not say whom they are for.
        del clock, host
        self._role = role
        self._error: RemoteProtocolError | None = None
        self._session = self.direct = self.blocks = session = _core.Session(
            role,
            id=id,
            nonce=nonce,
            name=name,
            secret=secret,
            stream_window=limits.stream_window_bytes,
            connection_window=limits.connection_window_bytes,
            streams_max=limits.streams_max,
            software=software,
            capabilities=[ZSTD] if limits.compress_below_bytes_s else [],
        )
        self.compresses = session if limits.compress_below_bytes_s else None
        # No more than a lump of credit, so that there is as much.
        self._gathers = min(GATHER_BYTES, limits.stream_window_bytes // 4)
        # What needs no conversion is the session's own method: one frame less for each call.
        self.room = session.room
        self.write = session.write
        self.write_journal = session.write_journal
        self.sent = session.sent
        self.take = session.take
        self.ended = session.ended
        self.settle = session.settle

    # The same, of what is called seldom: looked up each time, it is no object that each quiet connection keeps.
    receive_data = property(attrgetter("_session.receive_data"))
    receive_eof = property(attrgetter("_session.receive_eof"))
    data_to_send = property(attrgetter("_session.data_to_send"))
    admit = property(attrgetter("_session.admit"))
    refuse = property(attrgetter("_session.refuse"))
    reply = property(attrgetter("_session.reply"))
    fail = property(attrgetter("_session.fail"))
    ping = property(attrgetter("_session.ping"))
    close = property(attrgetter("_session.close"))
    end = property(attrgetter("_session.end"))
    reset = property(attrgetter("_session.reset"))
    stop = property(attrgetter("_session.stop"))
    statistics = property(attrgetter("_session.statistics"))

    @property
    def receive_gathers(self) -> int:
        # A window that has just begun to open, or is used up: the peer waits for us.
        may_come = self._session.may_come
        return 0 if may_come < GATHER_BYTES_MIN else min(self._gathers, may_come)

    @property
    def receive_paused(self) -> bool:
        """Never: credit keeps the peer from being too far ahead."""
        return False

    @property
    def eof_to_send(self) -> bool:
        return self._session.eof_to_send

    def call(self, request: Request) -> int:
        return self._session.call(*encode_request(request))

    def open(self, role: Role, name: str, offset: int = 0) -> int:
        return self._session.open(role, name, offset)

    def next_event(self) -> Event | None:
        if self._error is not None:
            raise self._error
        while (event := self._session.next_event()) is not None:
            message = self._called(event) if isinstance(event, _core.Called) else _message(event)
            if message is not None:
                return message
        return None

    def _called(self, event: _core.Called) -> Called | None:
        try:
            return Called(event.call, decode_request(self._role, event.method, event.args))
        except Unsupported as error:
            self._session.fail(event.call, "Unsupported", error.what)
            return None
        except RemoteProtocolError as error:
            self._error = error
            self._session.close("protocol", str(error))
            raise


def _message(event: _core.Event) -> Event:  # noqa: C901 - one row for each event, the frequent ones first
    match event:
        case _core.StreamReadable():
            return StreamReadable(event.stream)
        case _core.StreamProgress():
            return StreamProgress(event.stream, event.next, event.durable, event.done)
        case _core.StreamWritable():
            return StreamWritable(event.stream)
        case _core.StreamOpened():
            return StreamOpened(event.stream, event.role, event.name, event.offset)
        case _core.Replied():
            return Replied(event.call, event.value)
        case _core.CallFailed():
            return CallFailed(event.call, event.type, event.text)
        case _core.StreamReset():
            return StreamReset(event.stream, event.reason)
        case _core.StreamStopped():
            return StreamStopped(event.stream, event.reason)
        case _core.Ponged():
            return Ponged(event.nonce)
        case _core.PeerClosed():
            return PeerClosed(event.reason, event.text)
        case _core.LoginAsked():
            return LoginAsked(name=event.name, instance=event.instance, software=event.software)
        case _core.LoggedIn():
            return LoggedIn(peer=event.peer, software=event.software)
        case _core.Refused():
            return Refused(event.reason, event.text)
        case _core.Called():
            raise AssertionError("calls are decoded")
        case _:
            assert_never(event)
