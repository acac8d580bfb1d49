"""The worker's side: dial a master, log in, and serve its calls until either ends it."""

from __future__ import annotations

import errno
import logging
import secrets
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, assert_never, final

import trio

from tailrace.dialects import DIALECTS
from tailrace.errors import (
    ConnectionClosed,
    ConnectionLost,
    LocalProtocolError,
    LoginRefused,
    RemoteError,
    RemoteProtocolError,
    TailraceError,
    UnknownCommand,
    describe,
)
from tailrace.limits import Limits
from tailrace.link.endpoint import Endpoint, connect
from tailrace.link.flow import Inflow
from tailrace.link.foreign import Raised, call_foreign
from tailrace.link.holdings import Holding, Holdings, key_of
from tailrace.link.proxy import FileReaderProxy, FileWriterProxy, RemoteCommandProxy
from tailrace.link.pump import Pump, clock
from tailrace.link.remote import RemoteReader, RemoteWriter
from tailrace.messages import (
    AskShutdown,
    ForgetCommand,
    GetWorkerInfo,
    Held,
    InterruptCommand,
    LoggedIn,
    PeerClosed,
    Print,
    Refused,
    ResumeCommand,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tailrace.messages import Event, Request, StreamOpened, Value

log = logging.getLogger("tailrace.link")

# What a master says when it closes because it does not want this worker; anything else is a connection that ended.
REFUSALS = frozenset({"duplicate", "not now", "rejected", "draining"})


class WorkerHandler(Protocol):
    """What a worker implements. Called one at a time, in the order of the master's calls.

    What it raises refuses the call: the master sees a `RemoteError` with the class's name and the text.
    """

    async def print(self, message: str) -> None:
        """Write it to the worker's log."""

    async def getWorkerInfo(self) -> Mapping[str, Value]:
        """What the worker says of itself."""

    async def setBuilderList(self, builders: list[tuple[str, str]]) -> Sequence[str]:
        """Have these builders, each (name, directory), and no others. The names of those that are there."""

    async def startBuild(self, builder: str) -> None:
        """A build begins."""

    async def startCommand(
        self, builder: str, command: str, name: str, args: dict[str, object], proxy: RemoteCommandProxy
    ) -> None:
        """Accept a command, and return; or raise to refuse it. In `args`, Proxies stand for the master's Impls."""

    async def interruptCommand(self, builder: str, command: str, why: str) -> None:
        """Stop it. An unknown one is no error."""

    async def shutdown(self) -> None:
        """The process is to end."""

    def attached(self, master: str) -> None:
        """Before any of its calls: the master's id."""


@asynccontextmanager
async def dial(
    endpoint: str | Endpoint,
    *,
    name: str,
    secret: str | bytes,
    instance: str,
    handler: WorkerHandler,
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    software: str = "",
    holdings: Holdings | None = None,
) -> AsyncIterator[WorkerConnection]:
    """Attach to a master. The body begins when the master has taken this worker; the end of the body closes it.

    The body hears of a connection that ends by `wait_closed`. Cancelled: it is closed, within `close_timeout_s`. With
    `holdings` commands outlive the connection, on a wire that can resume, and go on in the next one that is given
    them.

    Raises:
        OSError: there is nobody, or TLS failed.
        LoginRefused: the master does not want this worker.
        RemoteProtocolError: there is somebody, but no master.
        ConnectionLost: the connection broke before the master took this worker.
    """
    where = endpoint if isinstance(endpoint, Endpoint) else Endpoint.parse(endpoint)
    limits = limits or Limits()
    with trio.move_on_after(limits.handshake_timeout_s) as patience:
        stream = await connect(where, tls)
    if patience.cancelled_caught:
        text = f"cannot connect to {where}: no answer within {limits.handshake_timeout_s:g} s"
        raise TimeoutError(errno.ETIMEDOUT, text)
    async with dial_stream(
        stream,
        wire=where.wire,
        host=where.authority,
        name=name,
        secret=secret,
        instance=instance,
        handler=handler,
        limits=limits,
        software=software,
        holdings=holdings,
    ) as connection:
        yield connection


@asynccontextmanager
async def dial_stream(
    stream: trio.abc.Stream,
    *,
    wire: str = "tailrace",
    host: str = "",
    name: str,
    secret: str | bytes,
    instance: str,
    handler: WorkerHandler,
    limits: Limits | None = None,
    software: str = "",
    holdings: Holdings | None = None,
) -> AsyncIterator[WorkerConnection]:
    """`dial`, over a transport that is there already, and belongs to this from here on."""
    limits = limits or Limits()
    dialect = DIALECTS[wire](
        "worker",
        id=instance,
        nonce=secrets.token_bytes(32),
        limits=limits,
        clock=clock,
        host=host,
        name=name,
        secret=secret.encode() if isinstance(secret, str) else secret,
        software=software,
    )
    pump = Pump(stream, dialect, limits)
    logged_in = await _log_in(pump)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        resumes = holdings is not None and pump.dialect.traits.resumes
        kept = holdings if holdings is not None and resumes else Holdings(nursery)
        connection = WorkerConnection(pump, logged_in.peer, handler, kept, keeps=resumes)
        nursery.start_soon(connection.run)
        # Kept and raised outside, so that it comes out as it is and not in a group of the nursery's.
        try:
            await connection.attach()
            yield connection
        except BaseException as error:
            failure = error
        pump.close("bye", ConnectionClosed())
    if failure is not None:
        raise failure


async def _log_in(pump: Pump) -> LoggedIn:
    try:
        with trio.move_on_after(pump.limits.handshake_timeout_s):
            return _logged_in(await pump.exchange())
        raise ConnectionLost(f"the master did not answer the login within {pump.limits.handshake_timeout_s:g} s")
    except BaseException:
        await pump.hang_up()
        raise


def _logged_in(event: Event) -> LoggedIn:
    match event:
        case LoggedIn():
            return event
        case Refused(reason, text):
            raise LoginRefused(reason, text)
        case PeerClosed(reason, text):
            raise ConnectionLost(f"the master closed the connection during the login: {text or reason}", reason=reason)
        case _:
            raise RemoteProtocolError(f"{type(event).__name__} during the login")


@final
class WorkerConnection:
    """An attached worker's end of its connection."""

    def __init__(self, pump: Pump, peer: str, handler: WorkerHandler, holdings: Holdings, *, keeps: bool) -> None:
        """`keeps`: what is held outlives this connection."""
        self.peer = peer
        """The master's id."""
        # For whom it is held; nobody where it ends with the connection.
        self._master = peer if keeps else ""
        self._pump = pump
        self._handler = handler
        self._holdings = holdings
        self._keeps = keeps
        self._calls: deque[tuple[int, Request]] = deque()
        self._called = trio.Event()
        self._ended = trio.Event()

    async def wait_closed(self) -> TailraceError:
        """Wait until it is over; why. Cancellation changes nothing."""
        await self._ended.wait()
        assert self._pump.why is not None
        return self._pump.why

    def loseConnection(self, reason: str = "bye") -> None:
        """Close it, for a `reason` that the master hears: `bye`, `shutdown`, `draining`."""
        self._pump.close(reason, ConnectionClosed())

    async def askShutdown(self) -> bool:
        """Ask the master for nothing more, and for `shutdown` when nothing runs. `False`: this wire cannot ask.

        Raises:
            RemoteError, ConnectionLost, ConnectionClosed: it did not come to that.
        """
        if not self._pump.dialect.traits.asks_shutdown:
            await trio.lowlevel.checkpoint()
            return False
        await self._pump.call(AskShutdown())
        return True

    def statistics(self) -> Mapping[str, float]:
        """Counters since it was made, and `rtt_s` once there was a ping."""
        counted: dict[str, float] = {**self._pump.dialect.statistics(), "commands": len(self._held())}
        if self._pump.rtt_s is not None:
            counted["rtt_s"] = self._pump.rtt_s
        return counted

    # ------------------------------------------------------------ for dial

    async def attach(self) -> None:
        """The first call: when it is answered the master has taken this worker."""
        try:
            self._handler.attached(self._master)
            if self._pump.dialect.eof_to_send:
                # The master has closed right behind the login, which `run` is about to find.
                await self._ended.wait()
            await self._pump.call(Held(tuple(holding.describe() for holding in self._held())))
        except ConnectionLost as error:
            why = self._pump.why
            if error.reason in REFUSALS:
                raise LoginRefused(error.reason, error.said) from None
            raise why if isinstance(why, RemoteProtocolError) else error from None

    async def run(self) -> None:
        """Serve until it is over."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve)
            await self._pump.run(self, nursery)
            nursery.cancel_scope.cancel()

    # ------------------------------------------------------------ for the pump

    def on_called(self, call: int, request: Request) -> None:
        """See `Owner`."""
        self._calls.append((call, request))
        self._called.set()

    def on_opened(self, opened: StreamOpened) -> None:
        """See `Owner`."""
        holding = self._holdings.find(self._master, opened.name)
        if holding is None or not holding.on_opened(self._pump, opened):
            self._pump.refuse(opened, f"LocalProtocolError: command {opened.name} takes no {opened.role}")

    def on_ended(self, why: TailraceError) -> None:
        """See `Owner`."""
        for holding in self._held():
            if self._keeps:
                holding.suspend()
            else:
                holding.fail(self._pump.lost())
        self._ended.set()

    def _held(self) -> list[Holding]:
        return self._holdings.of(self._master)

    # ------------------------------------------------------------ calls

    async def _serve(self) -> None:
        """One call after the other: an interrupt does not overtake the start that it means."""
        while True:
            while self._calls:
                call, request = self._calls.popleft()
                try:
                    self._pump.reply(call, await call_foreign(self._do, request))
                except Raised as raised:
                    if not isinstance(raised.error, TailraceError):
                        raised.report("%s raised", type(request).__name__)
                    self._pump.fail(call, *describe(raised.error))
                except LocalProtocolError as error:
                    log.error("the answer to %s cannot be sent: %s", type(request).__name__, error)
                    self._pump.fail(call, *describe(error))
            self._called = trio.Event()
            await self._called.wait()

    async def _do(self, request: Request) -> Value:  # noqa: C901 - one row for each call
        handler = self._handler
        match request:
            case Print(message):
                await handler.print(message)
            case GetWorkerInfo():
                return await handler.getWorkerInfo()
            case SetBuilderList(builders):
                return list(await handler.setBuilderList(list(builders)))
            case StartBuild(builder):
                await handler.startBuild(builder)
            case StartCommand():
                await self._start(request)
            case InterruptCommand(builder, command, why):
                await handler.interruptCommand(builder, command, why)
            case Shutdown():
                await handler.shutdown()
            case ForgetCommand(command):
                await self._forget(command)
            case ResumeCommand(command):
                return self._holding(command).resume(self._pump, request).to_value()
            case Held() | AskShutdown():
                raise RemoteProtocolError(f"a master does not call {type(request).__name__}")
            case _:
                assert_never(request)
        return None

    async def _start(self, request: StartCommand) -> None:
        key = key_of(self._master, request)
        known = self._holdings.find(self._master, request.command)
        # Commands are idempotent: a start that is said twice is done once.
        if known is not None and known.key == key:
            return
        holding = self._holdings.hold(key)
        holding.begin(self._pump)
        accepted = False
        # Where the master makes the builders, all paths are absolute, and the worker knows of no builder.
        builder = request.builder if self._pump.dialect.traits.worker_makes_builders else ""
        try:
            proxy = RemoteCommandProxy(holding, request.command, key)
            await self._handler.startCommand(
                builder, request.command, request.name, self._args(holding, request), proxy
            )
            accepted = True
        finally:
            if not accepted:
                holding.free()

    def _args(self, holding: Holding, request: StartCommand) -> dict[str, object]:
        args: dict[str, object] = dict(request.args)
        for name, kind in request.impls.items():
            if kind == "FileWriter":
                args[name] = writer = FileWriterProxy(RemoteWriter(holding.upload))
                writer.takes_compressed = self._pump.dialect.traits.takes_compressed
            else:
                holding.download = Inflow()
                args[name] = FileReaderProxy(RemoteReader(holding.download, self._pump.breach))
        return args

    async def _forget(self, command: str) -> None:
        why = "the master has forgotten it"
        if (holding := self._holdings.find(self._master, command)) is not None:
            holding.fail(RemoteError("Forgotten", why))
        await self._handler.interruptCommand("", command, why)

    def _holding(self, command: str) -> Holding:
        holding = self._holdings.find(self._master, command)
        if holding is None:
            raise UnknownCommand(f"command {command!r} is not held")
        return holding
