"""The master's side: accept, log in, and have the master take each worker, or not. One port, one wire."""

from __future__ import annotations

import gc
import logging
import secrets
from typing import TYPE_CHECKING, Protocol, TypeVar, cast, final

import attrs
import trio

from tailrace._core import keep_freed_memory
from tailrace.dialects import DIALECTS
from tailrace.errors import (
    ConnectionClosed,
    ConnectionLost,
    RemoteError,
    RemoteProtocolError,
    TailraceError,
)
from tailrace.limits import Limits
from tailrace.link.accounts import Accounts
from tailrace.link.connection import Connection
from tailrace.link.endpoint import Endpoint, bound, open_listeners, peer_of, tune
from tailrace.link.foreign import Raised, call_foreign
from tailrace.link.pump import Pump, clock
from tailrace.messages import LoggedIn, LoginAsked, PeerClosed

if TYPE_CHECKING:
    import ssl

    from tailrace.link.resume import Resume
    from tailrace.messages import Event, HeldCommand

log = logging.getLogger("tailrace.link")

T = TypeVar("T", bound="Event")

# How many looks at the younger objects there are before Python looks for cycles among all. A connection is a hundred
# objects that stay: by Python's own number, 10, a third of what a login costs are looks at connections that have not
# changed, and with 5,000 of them each look stops the process for a quarter of a second.
GC_OLD_THRESHOLD = 1000


class Master(Protocol):
    """What a `Listener` asks its master.

    An attribute `masterId`, if it has one, is what its workers know it by; else each `Listener` makes one up.

    An attribute `connections`, a dict that they fill (worker's name → its Connection), lets its Listeners know of each
    other's workers: one that comes back by another endpoint is the same.

    A master that outlives its own restarts, which needs a `masterId`, has a method more::

        async def resumeCommand(self, conn: Connection, commandId: str, args: Mapping[str, object]) -> Resume | None

    It is called after `newConnection` (and in every later session) for each command that the worker still holds and
    that `conn` does not know. `args` says what the worker knows of it: `builder`, `name`, `end` (how long its journal
    is), and whether it is `running`. `None`: the worker is to forget it, which interrupts what runs. What it raises
    is logged, and the command is asked for again in the next session.
    """

    async def newConnection(self, conn: Connection, workerName: str) -> bool:
        """A worker has logged in: whether it is taken. `conn` works already, and may be used here."""


@final
class Listener:
    """One endpoint of a master.

    Example::

        listener = Listener(master, "tailrace://127.0.0.1:7117")
        listener.updateRegistration("w1", secret)
        await nursery.start(listener.serve)
    """

    def __init__(
        self,
        master: Master,
        endpoint: str,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        connection_class: type[Connection] = Connection,
    ) -> None:
        self._master = master
        self._endpoint = Endpoint.parse(endpoint)
        self._tls = self._endpoint.require_tls(tls)
        self._limits = limits or Limits()
        self._connection_class = connection_class
        given = getattr(master, "masterId", None)
        self._master_id = given if isinstance(given, str) else secrets.token_hex(16)
        self._accounts = Accounts()
        shared = getattr(master, "connections", None)
        self._attached: dict[str, Connection] = shared if isinstance(shared, dict) else {}
        self._handshakes = 0
        self._accepted = 0
        self._failed = 0

    @property
    def endpoint(self) -> str:
        """Where it listens; with the real port, once it serves."""
        return str(self._endpoint)

    def updateRegistration(self, workerName: str, secret: str | bytes | None) -> None:
        """Let a worker in by this secret from now on; `None`: not any more. Who is attached stays so."""
        self._accounts.update(workerName, secret)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, and serve for ever. Cancelled: every connection is closed, within `close_timeout_s`.

        For the whole process, and for good: some MiB of freed memory are kept, and Python's collector looks at old
        objects seldom (`gc.get_threshold`). A TLS context reads all records at once from then on, unless it has an
        `sslobject_class` of its own.

        Raises:
            OSError: it cannot listen there; the text says why.
        """
        keep_freed_memory()
        _look_at_old_objects_seldom()
        listeners = await open_listeners(self._endpoint, self._tls)
        self._endpoint = bound(self._endpoint, listeners[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._serve_accepted, listeners)
            task_status.started()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over a transport that is there already, until it is over."""
        peer = peer_of(stream)
        if self._handshakes >= self._limits.handshakes_max:
            log.warning("%s: refused, %d others are logging in", peer, self._handshakes)
            await trio.aclose_forcefully(stream)
            return
        pump, login = await self._welcome(stream, peer)
        if login is None:
            await pump.hang_up()
            return
        old = self._attached.get(login.name)
        if old is not None and old.may_resume and login.instance and old.instance == login.instance:
            await old.resume(pump, peer)
            return
        connection = self._connection_class(pump, workerName=login.name, instance=login.instance, peer=peer)
        if not await self._make_place(connection, pump):
            await pump.hang_up()
            return
        connection.notifyOnDisconnect(lambda: self._forget(connection))
        await connection.run(lambda: self._introduce(connection))

    def statistics(self) -> ListenerStatistics:
        """Counters since it was made."""
        return ListenerStatistics(
            accounts=len(self._accounts),
            attached=len(self._attached),
            handshakes=self._handshakes,
            accepted=self._accepted,
            failed=self._failed,
        )

    async def _serve_accepted(self, stream: trio.abc.Stream) -> None:
        """One connection's mishap, even an error of our own, is not the others'."""
        try:
            await call_foreign(self.serve_stream, stream)
        except Raised as raised:
            raised.report("%s: the connection failed", peer_of(stream))

    # ------------------------------------------------------------ the login

    async def _welcome(self, stream: trio.abc.Stream, peer: str) -> tuple[Pump, LoginAsked | None]:
        """The worker that has proven who it is, or `None`, which was logged."""
        dialect = DIALECTS[self._endpoint.wire](
            "master", id=self._master_id, nonce=secrets.token_bytes(32), limits=self._limits, clock=clock
        )
        pump = Pump(stream, dialect, self._limits)
        self._handshakes += 1
        try:
            with trio.move_on_after(self._limits.handshake_timeout_s):
                tune(stream)
                return pump, await self._log_in(pump)
            raise ConnectionLost(f"no login within {self._limits.handshake_timeout_s:g} s")
        except TailraceError as error:
            self._failed += 1
            log.warning("%s: %s: %s", peer, type(error).__name__, error)
            return pump, None
        except BaseException:
            await pump.hang_up()
            raise
        finally:
            self._handshakes -= 1

    async def _log_in(self, pump: Pump) -> LoginAsked:
        asked = _expect(LoginAsked, await pump.exchange())
        if not pump.dialect.admit(self._accounts.secret(asked.name)):
            raise RemoteError("LoginRefused", f"unknown worker or wrong secret: {asked.name!r}")
        _expect(LoggedIn, await pump.exchange())
        return asked

    async def _make_place(self, new: Connection, pump: Pump) -> bool:
        """One connection for each name: the same instance wins at once, another one if the old does not answer."""
        name = new.workerName
        if name in self._attached:
            # It may take a while.
            await pump.speak()
        while (old := self._attached.get(name)) is not None:
            if not old.is_same_worker(new) and await old.answers(self._limits.duplicate_timeout_s):
                text = f"{name!r} is attached from {old.peer}"
                log.warning("%s: refused (duplicate): %s", new.peer, text)
                self._failed += 1
                new.refuse("duplicate", text)
                return False
            old.replace(f"{name!r} has come again from {new.peer}")
            # The old transport is closed before the new session's first event.
            await old.wait_transport_closed()
        self._attached[name] = new
        return True

    async def _introduce(self, connection: Connection) -> None:
        """Have the master take it, or close it."""
        name = connection.workerName
        try:
            with trio.fail_after(self._limits.handshake_timeout_s):
                await connection.remoteGetWorkerInfo()
            taken = await call_foreign(self._master.newConnection, connection, name)
        except Raised as raised:
            if not isinstance(raised.error, ConnectionLost | ConnectionClosed):
                raised.report("%s: newConnection raised", name)
            connection.refuse("rejected", "the master failed to take this worker")
        except (TailraceError, trio.TooSlowError) as error:
            log.warning("%s (%s): getWorkerInfo failed: %s", name, connection.peer, error)
            connection.refuse("rejected", "getWorkerInfo failed")
        else:
            if taken:
                self._accepted += 1
                await connection.accept(self._resume_command)
            else:
                connection.refuse("rejected", "the master does not want this worker")

    async def _resume_command(self, connection: Connection, held: HeldCommand) -> Resume | None:
        """Ask a master that can tell: one that outlives its own restarts."""
        ask = getattr(self._master, "resumeCommand", None)
        if ask is None:
            return None
        told = {"builder": held.builder, "name": held.name, "end": held.end, "running": held.running}
        return cast("Resume | None", await ask(connection, held.command, told))

    def _forget(self, connection: Connection) -> None:
        if self._attached.get(connection.workerName) is connection:
            del self._attached[connection.workerName]


def _look_at_old_objects_seldom() -> None:
    """At least as seldom as `GC_OLD_THRESHOLD` says."""
    youngest, young, old = gc.get_threshold()
    gc.set_threshold(youngest, young, max(old, GC_OLD_THRESHOLD))


def _expect(kind: type[T], event: Event) -> T:
    match event:
        case kind():
            return event
        case PeerClosed(reason, text):
            raise ConnectionLost(f"it went away during the login: {text or reason}", reason=reason)
        case _:
            raise RemoteProtocolError(f"{type(event).__name__} during the login")


@final
@attrs.frozen(kw_only=True)
class ListenerStatistics:
    """Who came."""

    accounts: int
    attached: int
    handshakes: int
    accepted: int
    failed: int
