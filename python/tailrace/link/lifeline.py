"""One peer over one transport after another: what a `Connection` and its commands talk to.

A pump is a session, and ends with its transport. A lifeline lives as long as the connection: when a session breaks it
is *suspended*, and waits for the next one for as long as `resume_grace_s`; calls wait with it. It is over when it is
closed, when it is not kept (its master has not taken it yet, or the wire cannot resume), or when nobody came.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, Protocol, final

import trio

from tailrace.errors import ConnectionClosed, ConnectionLost, TailraceError
from tailrace.link.bell import Bell
from tailrace.messages import InterruptCommand, StartCommand

if TYPE_CHECKING:
    from tailrace.dialects.dialect import Traits
    from tailrace.errors import RemoteProtocolError
    from tailrace.limits import Limits
    from tailrace.link.pump import Pump
    from tailrace.messages import Request, StreamOpened, Value

State = Literal["attached", "suspended", "lost"]

# What ends a session and not a connection: a transport that broke or ended, and a worker that says that it comes back.
RESUMABLE = frozenset({"", "away"})
# How long a session that is replaced may take to say so: enough for a writer's turn, nothing for a dead peer.
REPLACE_S = 0.2


class LifelineOwner(Protocol):
    """Who a lifeline works for. None of these waits."""

    def on_called(self, call: int, request: Request) -> None:
        """The peer calls."""

    def on_opened(self, opened: StreamOpened) -> None:
        """The peer opened a stream: adopt it, or refuse it."""

    def on_suspended(self, why: TailraceError) -> None:
        """A session is over; there may be another."""

    def on_resuming(self) -> None:
        """There is another. Calls of others wait until `ready`."""

    def on_ended(self, why: TailraceError) -> None:
        """It is over. Said once."""


@final
class Lifeline:
    """The sessions of one connection, one at a time."""

    def __init__(self, pump: Pump) -> None:
        self.why: TailraceError | None = None
        """Why it is over; `None` while it is not."""
        self.keeps = False
        """Whether a session that breaks suspends it. Set when the master has taken the worker."""
        self._pump = pump
        self._earlier: Counter[str] = Counter()
        self._owner: LifelineOwner | None = None
        self._ready = True
        self._next: Pump | None = None
        self._grace_ends = 0.0
        self._changed = Bell()

    @property
    def pump(self) -> Pump:
        """The session that there is, or was last."""
        return self._pump

    @property
    def limits(self) -> Limits:
        """What was configured."""
        return self._pump.limits

    @property
    def traits(self) -> Traits:
        """What its wire can carry."""
        return self._pump.dialect.traits

    @property
    def state(self) -> State:
        """`suspended` until the next session is `ready`; `lost` is for ever."""
        return "lost" if self.why is not None else "attached" if self._ready else "suspended"

    def counted(self, what: str) -> int:
        """A number of the dialect's statistics that only grows, over all sessions."""
        return self._earlier[what] + self._pump.dialect.statistics()[what]

    async def run(self, owner: LifelineOwner, nursery: trio.Nursery) -> None:
        """Work until it is over. Cancelled: says goodbye to the peer, within `close_timeout_s`.

        `nursery`: see `Pump.run`.
        """
        self._owner = owner
        try:
            while True:
                await self._pump.run(self, nursery)
                await self._wait_next()
                if self.why is not None:
                    return
                owner.on_resuming()
        finally:
            self._finish(ConnectionClosed())

    async def resume(self, pump: Pump) -> None:
        """The same peer has come again: its old session, broken or not, makes place for this one.

        The old transport is closed before the first event of the new session is seen. Returns when this one is over.
        """
        late, self._next = self._next, pump
        if late is not None:
            # One that came in between, and had no turn yet.
            late.close("duplicate", ConnectionLost("the worker has come again"))
        if self._pump.why is None:
            why = ConnectionLost("the worker has come again, from a connection of its own")
            self._pump.close("duplicate", why, "this worker has come again", patience_s=REPLACE_S)
        self._changed.ring()
        while self._next is pump and self.why is None:
            await self._changed.wait()
        if self._pump is pump:
            await pump.closed.wait()
        else:
            await pump.hang_up()

    def ready(self) -> None:
        """The session is under way: calls may go."""
        self._ready = True
        self._changed.ring()

    def close(self, reason: str, why: TailraceError, text: str = "", *, patience_s: float | None = None) -> None:
        """Say goodbye, and be over. Does nothing if it is over already."""
        self.keeps = False
        self._pump.close(reason, why, text, patience_s=patience_s)
        self._finish(why)

    def break_off(self, why: ConnectionLost) -> None:
        """This session is no good; the next may be."""
        self._pump.close("protocol", why, str(why)[:1000])

    def breach(self, error: RemoteProtocolError) -> None:
        """The peer broke the protocol."""
        self._pump.breach(error)

    async def call(self, request: Request) -> Value:
        """Call the peer's method. While it is suspended this waits. Cancelled: the call may happen.

        A start or an interrupt whose answer did not come is said again in the next session.

        Raises:
            RemoteError: the peer's method raised.
            ConnectionLost: it is lost; or this session broke before the answer came (`maybe_done`).
            ConnectionClosed: it was closed.
            LocalProtocolError: it cannot be said on this wire.
        """
        while True:
            pump = await self._wait_ready()
            try:
                return await pump.call(request)
            except ConnectionLost as error:
                # It may not be known yet that there will be another session.
                repeats = not error.maybe_done or isinstance(request, StartCommand | InterruptCommand)
                if self.why is not None or not repeats:
                    raise

    def check(self) -> None:
        """Raise why it is over, if it is."""
        if self.why is not None:
            raise _copy(self.why)

    def lost(self) -> ConnectionLost:
        """Why it is over, as a `ConnectionLost` whoever did it."""
        return _lost(self.why) if self.why is not None else ConnectionLost()

    # what the pump says: see `Owner`

    def on_called(self, call: int, request: Request) -> None:
        assert self._owner is not None
        self._owner.on_called(call, request)

    def on_opened(self, opened: StreamOpened) -> None:
        assert self._owner is not None
        self._owner.on_opened(opened)

    def on_ended(self, why: TailraceError) -> None:
        assert self._owner is not None
        if not self._may_resume(why):
            self._finish(why)
            return
        if self._ready:
            self._grace_ends = trio.current_time() + self.limits.resume_grace_s
        self._ready = False
        self._owner.on_suspended(why)

    # ------------------------------------------------------------ private

    def _may_resume(self, why: TailraceError) -> bool:
        is_break = isinstance(why, ConnectionLost) and why.reason in RESUMABLE
        return self.keeps and is_break and self.traits.resumes and self.limits.resume_grace_s > 0

    async def _wait_next(self) -> None:
        """The next session, or the end."""
        with trio.CancelScope(deadline=self._grace_ends):
            while self._next is None and self.why is None:
                await self._changed.wait()
        if self._next is not None and self.why is None:
            self._earlier.update(self._pump.dialect.statistics())
            self._pump, self._next = self._next, None
            self._changed.ring()
        elif self.why is None:
            why = self._pump.why
            self._finish(ConnectionLost(f"{why}; it did not come back within {self.limits.resume_grace_s:g} s"))

    async def _wait_ready(self) -> Pump:
        while not self._ready and self.why is None:
            await self._changed.wait()
        self.check()
        return self._pump

    def _finish(self, why: TailraceError) -> None:
        if self.why is not None:
            return
        self.why = why
        if self._next is not None:
            self._next.close("bye", ConnectionClosed())
        if self._owner is not None:
            self._owner.on_ended(why)
        self._changed.ring()


def _copy(why: TailraceError) -> ConnectionLost | ConnectionClosed:
    """For one task: one error, raised in many, would collect the tracebacks of all of them."""
    return ConnectionClosed(why.reason) if isinstance(why, ConnectionClosed) else _lost(why)


def _lost(why: TailraceError) -> ConnectionLost:
    if isinstance(why, ConnectionLost):
        return ConnectionLost(why.text, reason=why.reason, said=why.said)
    error = ConnectionLost(str(why))
    error.__cause__ = why
    return error
