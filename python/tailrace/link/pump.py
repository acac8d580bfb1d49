"""The one pump: receive data; while there is an event, hand it on; send what there is to send.

Every wire and both sides go through here, and nothing else receives or sends (`transport.py`). One task reads, and one
writes as long as something is left to send, or about to be: thousands of connections are quiet, and cost one task each.
The vigil listens for silence. The owner (`Connection`, or `WorkerConnection`) hears of calls, of new streams and of the
end; answers to our own calls, and what happens to streams, are dealt with here.

The end has one door: `_end`. It says why, once; then everything that waits is told, the writer sends what is left
(within `close_timeout_s`, if there is anyone to send it to), and the transport is closed.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Protocol, final

import attrs
import trio

from tailrace.errors import (
    ConnectionClosed,
    ConnectionLost,
    RemoteError,
    RemoteProtocolError,
    TailraceError,
    remote_error,
)
from tailrace.link.bell import Bell
from tailrace.link.stream import Incoming, Outgoing, error_of_reason
from tailrace.link.transport import Transport
from tailrace.link.vigil import watch
from tailrace.messages import (
    Called,
    CallFailed,
    PeerClosed,
    Ponged,
    Replied,
    StreamOpened,
    StreamProgress,
    StreamReadable,
    StreamReset,
    StreamStopped,
    StreamWritable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailrace.dialects.dialect import Dialect
    from tailrace.limits import Limits
    from tailrace.messages import Event, Request, Role, Value

# The wire allows 1,024 unanswered calls; the rest waits here.
CALLS_MAX = 1000
# The wire allows 16 unanswered pings (PROTOCOL.md section 8).
PINGS_MAX = 12


def clock() -> tuple[int, int]:
    """Wall and monotonic time in microseconds, for a dialect whose wire has no times."""
    return time.time_ns() // 1000, time.monotonic_ns() // 1000


class Owner(Protocol):
    """Who a pump works for. None of these waits."""

    def on_called(self, call: int, request: Request) -> None:
        """The peer calls."""

    def on_opened(self, opened: StreamOpened) -> None:
        """The peer opened a stream: adopt it, or refuse it."""

    def on_ended(self, why: TailraceError) -> None:
        """It is over. Said once."""


@final
class Pump:
    """One transport and one dialect, until either ends."""

    def __init__(self, transport: trio.abc.Stream, dialect: Dialect, limits: Limits) -> None:
        self.dialect = dialect
        self.limits = limits
        self.why: TailraceError | None = None
        """Why it is over; `None` while it is not."""
        self.closed = trio.Event()
        """The transport is closed."""
        self.rtt_s: float | None = None
        """The last round trip that was measured."""
        self._transport = Transport(transport, dialect, limits)
        self._owner: Owner | None = None
        self._heard = trio.current_time()
        self._pings: dict[int, _Ping] = {}
        self._nonce = 0
        self._calls: dict[int, _Call] = {}
        self._crowd: trio.lowlevel.ParkingLot | None = None
        self._outgoing: dict[int, Outgoing] = {}
        self._incoming: dict[int, Incoming] = {}
        self._nursery: trio.Nursery | None = None
        self._unsent = False
        self._said = Bell()
        self._settled = Bell()
        self._paused = self._is_handing_on = False
        self._reading = trio.CancelScope()
        # Of the task that writes, while there is one. It outlives a cancellation by as long as the last words take.
        self._writing: trio.CancelScope | None = None
        self._written = Bell()
        self._last_words_until = math.inf
        # When the ping was sent that was not answered by anything yet, and what had been heard last before it.
        self._asked: tuple[float, float] | None = None

    # the login, before `run`

    async def exchange(self) -> Event:
        """The next event. What there is to send is sent before it is waited for, and else with what is said next.

        Cancelled: the connection is of no more use.

        Raises:
            RemoteProtocolError: the peer broke the protocol.
            ConnectionLost: the transport ended.
        """
        while True:
            try:
                if (event := self.dialect.next_event()) is not None:
                    return event
                await self._drain()
                await self._transport.receive()
                self._heard = trio.current_time()
            except RemoteProtocolError:
                await self._drain_quietly()
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionLost(_broken(error)) from error

    async def speak(self) -> None:
        """Send what is left of the login, before something else is waited for. Cancelled: as `exchange`."""
        await self._drain_quietly()

    async def hang_up(self) -> None:
        """Instead of `run`: send what is left and close the transport, within `close_timeout_s`, whatever happens."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self.limits.close_timeout_s):
            await self._drain_quietly()
            await self._transport.aclose()
        await self._close_transport()

    # the life of it

    async def run(self, owner: Owner, nursery: trio.Nursery) -> None:
        """Work until it is over. `why` says why. Cancelled: says goodbye to the peer, within `close_timeout_s`.

        `nursery` is where the task that writes comes and goes. None of it is left there afterwards.
        """
        self._owner, self._nursery = owner, nursery
        watched = watch(self, self._heard + self.limits.ping_interval_s)
        try:
            try:
                with self._reading:
                    await self._read()
            finally:
                # Does something only when cancelled. The writer, which is shielded, then says it.
                self.close("bye", ConnectionClosed())
                with trio.CancelScope(shield=True):
                    while self._writing is not None:
                        await self._written.wait()
                self._nursery = None
        finally:
            watched.end()
            await self._close_transport()

    def close(self, reason: str, why: TailraceError, text: str = "", *, patience_s: float | None = None) -> None:
        """Say goodbye, and be over. Does nothing if it is over already."""
        if self.why is None:
            self.dialect.close(reason, text)
            self._end(why, self.limits.close_timeout_s if patience_s is None else patience_s)

    def breach(self, error: RemoteProtocolError) -> None:
        """The peer broke the protocol in a way that the dialect could not see."""
        self.close("protocol", error, str(error)[:1000])

    def flush(self) -> None:
        """Something was said: have it sent. What was taken may let the peer be heard again."""
        self._settled.ring()
        if self._owner is not None and self.why is None and self._transport.send_now():
            # What was sent has made room.
            self._hand_on()
            return
        self._unsent = True
        if self._writing is not None:
            self._said.ring()
        elif self._nursery is not None and trio.current_time() < self._last_words_until:
            self._writing = trio.CancelScope(shield=True, deadline=self._last_words_until)
            self._nursery.start_soon(self._write, self._writing)

    # calls

    async def call(self, request: Request) -> Value:
        """Call the peer's method. Cancelled: the call may happen; its answer is ignored.

        Raises:
            RemoteError: the peer's method raised.
            ConnectionLost, ConnectionClosed: there will be no answer.
            LocalProtocolError: it cannot be said on this wire.
        """
        self.check()
        # It is said now, and not behind what the other tasks of this turn do: in a flood that is much.
        await trio.lowlevel.checkpoint_if_cancelled()
        while len(self._calls) >= CALLS_MAX:
            self._crowd = self._crowd or trio.lowlevel.ParkingLot()
            await self._crowd.park()
        self.check()
        call = self._calls[self.dialect.call(request)] = _Call()
        self.flush()
        self._transport.hurry()
        await call.answered.wait()
        if call.error is not None:
            raise call.error
        return call.value

    def reply(self, call: int, value: Value) -> None:
        """Answer a call of the peer, if it is still there."""
        if self.why is None:
            self.dialect.reply(call, value)
            self.flush()

    def fail(self, call: int, kind: str, text: str) -> None:
        """Answer a call of the peer: it raised."""
        if self.why is None:
            self.dialect.fail(call, kind, text)
            self.flush()

    async def ping(self) -> float:
        """Ask for a sign of life; the round trip in seconds. Cancellation changes nothing."""
        self.check()
        ping = self._send_ping()
        while ping.rtt_s is None:
            self.check()
            await ping.answered.wait()
        return ping.rtt_s

    def check(self) -> None:
        """Raise why it is over, if it is."""
        if self.why is not None:
            raise self.error(maybe_done=False)

    def error(self, *, maybe_done: bool) -> ConnectionLost | ConnectionClosed:
        """Why it is over, for a call."""
        if isinstance(self.why, ConnectionClosed):
            return ConnectionClosed(self.why.reason)
        return self.lost(maybe_done=maybe_done)

    def lost(self, *, maybe_done: bool = False) -> ConnectionLost:
        """Why it is over, as a `ConnectionLost` whoever did it."""
        if isinstance(self.why, ConnectionLost):
            why = self.why
            return ConnectionLost(why.text, maybe_done=maybe_done, reason=why.reason, said=why.said)
        error = ConnectionLost(str(self.why), maybe_done=maybe_done)
        error.__cause__ = self.why
        return error

    # streams

    def open(
        self, role: Role, name: str, offset: int = 0, on_progress: Callable[[StreamProgress], None] | None = None
    ) -> Outgoing:
        """Begin a stream of ours, or go on with one of an earlier session at `offset`."""
        self.check()
        stream = Outgoing(self.dialect, self.flush, role, name, offset, on_progress, self._forget)
        self._outgoing[stream.number] = stream
        self.flush()
        return stream

    def _forget(self, stream: Outgoing) -> None:
        """A stream of ours was reset: nothing is heard of it any more."""
        self._outgoing.pop(stream.number, None)

    def adopt(self, opened: StreamOpened) -> Incoming:
        """A stream of the peer's is wanted."""
        stream = Incoming(self.dialect, self.flush, self.breach, opened, self._drop)
        self._incoming[opened.stream] = stream
        return stream

    def _drop(self, stream: Incoming) -> None:
        """No task takes from it any more."""
        self._incoming.pop(stream.number, None)

    def refuse(self, opened: StreamOpened, reason: str) -> None:
        """A stream of the peer's is not wanted."""
        self.dialect.stop(opened.stream, reason)
        self.flush()

    # ------------------------------------------------------------ reading

    async def _read(self) -> None:
        # What is left to send of the login goes with what is said first, as always something is.
        self._hand_on()
        while self.why is None:
            await self._wait_unpaused()
            try:
                await self._transport.receive(None if self._calls or self._pings else self._received)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._end(ConnectionLost(_broken(error)))
                return
            self._received()

    def _received(self) -> bool:
        """Deal with what came. Whether what comes next can be dealt with when its time has come."""
        self._heard = trio.current_time()
        self._hand_on()
        # It may have made answers without an event: a pong.
        self.flush()
        return not (self.why or self._calls or self._pings or self.dialect.receive_paused)

    async def _wait_unpaused(self) -> None:
        """A peer that is too far ahead is not read, and so it is not missed either."""
        while self.dialect.receive_paused:
            self._paused = True
            await self._settled.wait()
        if self._paused:
            self._paused = False
            self._heard = trio.current_time()

    def _hand_on(self) -> None:
        """Not within itself: who handles an event may say something, and what that brings about is handled in turn."""
        if self._is_handing_on or self._owner is None:
            return
        self._is_handing_on = True
        try:
            while self.why is None and (event := self.dialect.next_event()) is not None:
                self._handle(event)
        except RemoteProtocolError as error:
            # The dialect has said why, and has closed.
            self._end(error, self.limits.close_timeout_s)
        finally:
            self._is_handing_on = False

    def _handle(self, event: Event) -> None:  # noqa: C901 - one row for each event
        assert self._owner is not None
        match event:
            case StreamReadable(number):
                if (incoming := self._incoming.get(number)) is not None:
                    incoming.on_readable()
            case StreamWritable(number):
                if (outgoing := self._outgoing.get(number)) is not None:
                    outgoing.on_writable()
            case StreamProgress(number):
                self._on_progress(number, event)
            case StreamOpened():
                self._owner.on_opened(event)
            case StreamReset(number, reason):
                if (incoming := self._incoming.pop(number, None)) is not None:
                    incoming.on_failure(error_of_reason(reason))
            case StreamStopped(number, reason):
                if (outgoing := self._outgoing.pop(number, None)) is not None:
                    outgoing.on_failure(error_of_reason(reason))
            case Called(number, request):
                self._owner.on_called(number, request)
            case Replied(number, value):
                self._answered(number, value, None)
            case CallFailed(number, kind, text):
                self._answered(number, None, remote_error(kind, text))
            case Ponged(nonce):
                self._on_pong(nonce)
            case PeerClosed(reason, text):
                self._on_peer_closed(reason, text)
            case _:
                self.breach(RemoteProtocolError(f"{type(event).__name__} after the login"))

    def _on_progress(self, number: int, event: StreamProgress) -> None:
        outgoing = self._outgoing.get(number)
        if outgoing is not None:
            outgoing.on_progress(event)
            if event.done:
                del self._outgoing[number]

    def _answered(self, number: int, value: Value, error: RemoteError | None) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            call.value, call.error = value, error
            call.answered.set()
            if self._crowd is not None:
                self._crowd.unpark()

    def _on_peer_closed(self, reason: str, text: str) -> None:
        if reason == "eof":
            why = ConnectionLost("the far side is gone")
        else:
            sentence = f"the far side closed the connection ({reason})"
            why = ConnectionLost(f"{sentence}: {text}" if text else sentence, reason=reason, said=text)
        self._end(why)

    # ------------------------------------------------------------ writing

    async def _write(self, scope: trio.CancelScope) -> None:
        """Send what there is to send, for as long as there is, or something is under way that will bring more."""
        # A wire that sends at once needs no help but with what is left.
        is_needed = not self._transport.sends_at_once
        try:
            with scope:
                while self._unsent:
                    self._unsent = False
                    await self._drain()
                    # What was said may have events of its own and nothing to send: a line that is held back.
                    self._hand_on()
                    if not self._unsent and is_needed and (self._incoming or self._outgoing or self._calls):
                        await self._said.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(ConnectionLost(_broken(error)))
        finally:
            self._writing = None
            self._written.ring()

    async def _drain(self) -> None:
        await self._transport.send(self._hand_on)

    async def _drain_quietly(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._drain()

    # ------------------------------------------------------------ liveness

    def look(self) -> float | None:
        """Ping a silent peer, and bury a dead one. See `Watched`."""
        now = trio.current_time()
        if self._paused:
            self._heard = now
        if self._asked is not None and self._asked[1] == self._heard:
            return self._bury(now, self._asked[0])
        self._asked = None
        if self.why is not None or now < (due := self._heard + self.limits.ping_interval_s):
            return None if self.why is not None else due
        if len(self._pings) >= PINGS_MAX:
            self.breach(RemoteProtocolError(f"{PINGS_MAX} pings without an answer, from a peer that is there"))
            return None
        self._send_ping()
        self._asked = now, self._heard
        return now + min(self.limits.ping_interval_s, self._patience_s)

    def _bury(self, now: float, asked: float) -> float | None:
        """Counted from the ping: a process that was stopped has asked nobody meanwhile."""
        ends = asked + self._patience_s
        if now < ends:
            return ends
        self._end(ConnectionLost(f"no sign of life from the far side for {now - self._heard:.0f} s"))
        return None

    @property
    def _patience_s(self) -> float:
        return self.limits.ping_timeout_s - self.limits.ping_interval_s

    def _send_ping(self) -> _Ping:
        self._nonce += 1
        ping = self._pings[self._nonce] = _Ping(trio.current_time())
        self.dialect.ping(self._nonce)
        self.flush()
        return ping

    def _on_pong(self, nonce: int) -> None:
        ping = self._pings.pop(nonce, None)
        if ping is not None:
            ping.rtt_s = self.rtt_s = trio.current_time() - ping.sent
            ping.answered.ring()

    # ------------------------------------------------------------ the end

    def _end(self, why: TailraceError, patience_s: float = 0) -> None:
        """`patience_s`: how long the last words may take; none if there is nobody to hear them."""
        if self.why is not None:
            return
        self.why = why
        self._reading.cancel()
        self._last_words_until = trio.current_time() + patience_s
        if self._writing is not None:
            self._writing.deadline = self._last_words_until
        self.flush()
        if self._owner is not None:
            self._owner.on_ended(why)
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        for call in self._calls.values():
            call.error = self.error(maybe_done=True)
            call.answered.set()
        for ping in self._pings.values():
            ping.answered.ring()
        for outgoing in list(self._outgoing.values()):
            outgoing.on_failure(self.lost())
        for incoming in list(self._incoming.values()):
            incoming.on_failure(self.lost())
        self._calls.clear()
        self._pings.clear()
        self._outgoing.clear()
        self._incoming.clear()
        if self._crowd is not None:
            self._crowd.unpark_all()

    async def _close_transport(self) -> None:
        await self._transport.aclose_forcefully()
        self.closed.set()


@final
@attrs.define
class _Call:
    answered: trio.Event = attrs.field(factory=trio.Event)
    value: Value = None
    error: TailraceError | None = None


@final
@attrs.define
class _Ping:
    sent: float
    rtt_s: float | None = None
    # Rings when it was answered, or will not be. Most pings are nobody's: they ask for a sign of life.
    answered: Bell = attrs.field(factory=Bell)


def _broken(error: Exception) -> str:
    return f"the connection broke: {error.__cause__ or error}".rstrip(": ")
