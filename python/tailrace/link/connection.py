"""A worker, as its master sees it: the document's `Connection`."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, TypeVar, cast, final

import attrs
import trio

from tailrace.errors import (
    CommandIdInUse,
    ConnectionClosed,
    ConnectionLost,
    LimitExceeded,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
    TailraceError,
)
from tailrace.link.bell import Bell, Turn
from tailrace.link.builders import make_builders
from tailrace.link.command import Command, Objects
from tailrace.link.foreign import call_back
from tailrace.link.impl import FileReaderImpl, FileWriterImpl, RemoteCommandImpl
from tailrace.link.lanes import Lanes
from tailrace.link.lifeline import REPLACE_S, Lifeline
from tailrace.link.proxy import FileReaderProxy, FileWriterProxy, RemoteCommandProxy, RemoteProxy
from tailrace.link.reunion import Reunion
from tailrace.link.text import Transcript
from tailrace.messages import (
    AskShutdown,
    GetWorkerInfo,
    Held,
    HeldCommand,
    InterruptCommand,
    Print,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tailrace.link.pump import Pump
    from tailrace.link.resume import Resume
    from tailrace.messages import ImplKind, Request, StreamOpened, Value

log = logging.getLogger("tailrace.link")

T = TypeVar("T")

# A command's id names its streams, and a name is a str of the wire.
ID_BYTES_MAX = 4096

ResumeCommandHook: TypeAlias = "Callable[[Connection, HeldCommand], Awaitable[Resume | None]]"
"""Asked for each command that a worker still holds and that its connection does not know. `None`: it is forgotten."""


class Connection:
    """One attached worker.

    Its `remote…` methods may be called from any task, and cancelling one leaves the connection as it was; whether the
    call still happens is then not known.

    They raise `RemoteError` if the worker refuses, `ConnectionLost` (`maybe_done`) if it breaks meanwhile, and
    `ConnectionClosed` after `loseConnection`.
    """

    proxies: ClassVar[Mapping[type, type]] = {
        RemoteCommandImpl: RemoteCommandProxy,
        FileWriterImpl: FileWriterProxy,
        FileReaderImpl: FileReaderProxy,
    }
    """Impl class → Proxy class. A subclass may override it."""

    def __init__(self, pump: Pump, *, workerName: str, instance: str, peer: str) -> None:
        self._line = Lifeline(pump)
        self._worker_name = workerName
        self._instance = instance
        self._peer = peer
        self._info: dict[str, Value] = {}
        self._builders: dict[str, Builder] = {}
        self._lanes = Lanes()
        self._setting = Turn()
        self._commands: dict[str, Command] = {}
        self._subscriptions: list[Subscription] = []
        self._nursery: trio.Nursery | None = None
        self._accepted = False
        self._freed = Bell()
        self._reunion = Reunion(self, self._line, self._commands)
        self.draining = False
        """The worker wants to end. It is shut down as soon as no command runs: better start none."""

    @property
    def workerName(self) -> str:
        """Who it logged in as."""
        return self._worker_name

    @property
    def instance(self) -> str:
        """The id that lives in the worker's base directory."""
        return self._instance

    @property
    def peer(self) -> str:
        """Its address, for people."""
        return self._peer

    @property
    def info(self) -> Mapping[str, Value]:
        """What the worker last said of itself; known before `newConnection`."""
        return self._info

    @property
    def state(self) -> Literal["attached", "suspended", "lost"]:
        """`suspended`: the transport broke, and the worker has `resume_grace_s` to come back. `lost` is for ever."""
        return self._line.state

    def createArgsProxies(self, args: Mapping[str, T]) -> dict[str, T | RemoteProxy[object]]:
        """A shallow copy of `args` with Proxies in the place of Impls."""
        return {name: self._proxy(value) for name, value in args.items()}

    def notifyOnDisconnect(self, cb: Callable[[], object]) -> Subscription:
        """Have `cb()` called once, when the connection is lost or closed; at once if it already is."""
        subscription = Subscription(cb, self._subscriptions)
        if self.state == "lost":
            subscription.fire()
        else:
            self._subscriptions.append(subscription)
        return subscription

    def loseConnection(self) -> None:
        """Close it. What is queued is still sent; every open Impl gets its `remote_complete(ConnectionLost)`."""
        self._line.close("bye", ConnectionClosed())

    async def remotePrint(self, message: str) -> None:
        """Write a message to the worker's log file."""
        await self._line.call(Print(_text("message", message)))

    async def remoteGetWorkerInfo(self) -> dict[str, Value]:
        """What the worker says of itself: its commands, version, environment, `encoding` and so on. Also `info`."""
        return await self._ask_info(self._line)

    async def remoteSetBuilderList(self, builders: Sequence[tuple[str, str]]) -> Mapping[str, Builder]:
        """Have these builders, each (name, directory), and no others. Their handles, by name."""
        wanted = [(str(name), str(directory)) for name, directory in builders]
        async with self._setting:
            await self._set_builders(wanted)
        return dict(self._builders)

    async def remoteStartCommand(
        self,
        remoteCommand: RemoteCommandImpl,
        builderName: str | Builder,
        commandId: str,
        commandName: str,
        args: Mapping[str, object],
    ) -> None:
        """Start a command. Returns when the worker has accepted it; what it does is told to `remoteCommand`.

        Cancelled: the command is interrupted, if it was started; `remote_complete` follows then.

        Raises:
            UnknownCommand, RemoteError: the worker refuses. `remote_complete` is not called.
            CommandIdInUse: another command has this id.
            LocalProtocolError: the builder was not set, the id is no text or too long, or an argument cannot be sent.
        """
        self._line.check()
        if len(_text("commandId", commandId).encode(errors="replace")) > ID_BYTES_MAX:
            raise LocalProtocolError(f"commandId is at most {ID_BYTES_MAX} bytes long")
        _text("commandName", commandName)
        builder = str(builderName)
        if builder not in self._builders:
            raise LocalProtocolError(f"builder {builder!r} was not set: call remoteSetBuilderList first")
        if self._line.traits.one_command_per_builder:
            builder = await self._lane(builder)
        await self._start(remoteCommand, builder, commandId, commandName, args)

    async def start_unbuilt(
        self, remoteCommand: RemoteCommandImpl, commandId: str, commandName: str, args: Mapping[str, object]
    ) -> None:
        """`remoteStartCommand` before there is any builder, with absolute paths. For wires whose workers make none."""
        await self._start(remoteCommand, "", commandId, commandName, args)

    async def _start(
        self,
        remoteCommand: RemoteCommandImpl,
        builder: str,
        commandId: str,
        commandName: str,
        args: Mapping[str, object],
    ) -> None:
        self._line.check()
        if commandId in self._commands:
            raise CommandIdInUse(f"command {commandId!r} is still there")
        if len(self._commands) >= self._line.limits.commands_max:
            raise LimitExceeded(f"commands_max: {self.workerName} has {len(self._commands)} commands")
        command = self._new_command(remoteCommand, builder, commandId, commandName, args)
        self._commands[commandId] = command
        self._spawn(command.run)
        try:
            await command.answered.wait()
        except trio.Cancelled:
            self.interrupt(command, "its start was cancelled")
            raise
        if command.refusal is not None:
            raise command.refusal

    async def remoteShutdown(self) -> None:
        """End the worker's process. That the connection ends is part of it."""
        try:
            await self._line.call(Shutdown())
        except ConnectionLost as error:
            if error.reason != "shutdown":
                raise

    async def remoteStartBuild(self, builderName: str | Builder) -> None:
        """A build begins in this builder."""
        await self._line.call(StartBuild(str(builderName)))

    async def remoteInterruptCommand(self, builderName: str | Builder, commandId: str, why: str) -> None:
        """Stop a command, and write `why` to the worker's log. An unknown or finished one is no error."""
        _text("why", why)
        command = self._commands.get(commandId)
        if command is not None:
            await self._interrupt(command, why)
        else:
            await trio.lowlevel.checkpoint()
            self._line.check()

    def durable(self, commandId: str, offset: int) -> None:
        """Everything of this command's journal before `offset` is safe: the worker may forget it.

        For Impls whose class says `durable_on_return = False`. `offset` is an `updates.end`, or another record's end.
        """
        command = self._commands.get(commandId)
        if command is not None:
            command.durable(offset)
        elif self.state != "lost":
            raise LocalProtocolError(f"there is no command {commandId!r}, or all of it is durable")

    def statistics(self) -> ConnectionStatistics:
        """Bytes since the connection was made, and what is under way now."""
        counted = self._line.pump.dialect.statistics()
        return ConnectionStatistics(
            bytes_sent=self._line.counted("bytes_sent"),
            bytes_received=self._line.counted("bytes_received"),
            bytes_queued=counted["queued"],
            streams=counted["streams"],
            calls=counted["calls"],
            commands=len(self._commands),
            rtt_s=self._line.pump.rtt_s,
        )

    # ------------------------------------------------------------ for the listener

    async def run(self, introduce: Callable[[], Awaitable[None]]) -> None:
        """Work until it is lost and every Impl was told. `introduce` runs beside it. Cancelled: as `loseConnection`."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(introduce)
            await self._line.run(self, self._nursery)

    async def accept(self, resume_command: ResumeCommandHook | None = None) -> None:
        """The master takes it: the worker's first call is answered. Returns when that is done, or the session is over.

        `resume_command` is asked for each command that the worker still holds from an earlier process of this master.
        """
        self._accepted = self._line.keeps = True
        if resume_command is not None:
            self._reunion.ask = partial(resume_command, self)
        await self._reunion.begin()

    @property
    def may_resume(self) -> bool:
        """Whether a session of the same worker goes on with it, instead of taking its place."""
        return self._accepted and self._line.traits.resumes and self.state != "lost"

    async def held_commands(self) -> frozenset[str]:
        """The ids of the commands that the worker holds for this master, as it said at the begin of the session.

        May be awaited in `newConnection`: it is the first thing that a worker says. Raises ConnectionLost if it does
        not.
        """
        return frozenset(held.command for held in await self._reunion.held())

    async def resume(self, pump: Pump, peer: str) -> None:
        """The same worker has come again: go on with this session, until it is over."""
        log.info("%s has come again, from %s", self.workerName, peer)
        self._peer = peer
        await self._line.resume(pump)

    async def wait_settled(self) -> None:
        """Wait until the worker can be told of every command that is over that it is safe. Cancellation changes
        nothing."""
        await trio.lowlevel.checkpoint()
        while any(command.completed for command in self._commands.values()):
            await self._freed.wait()

    def refuse(self, reason: str, text: str) -> None:
        """The master does not take it. The worker's dial raises `LoginRefused(reason, text)`."""
        self._line.close(reason, ConnectionClosed(f"refused ({reason}): {text}"), text)

    def replace(self, why: str) -> None:
        """Another connection takes its place, at once. The worker hears it, if it is still there."""
        self._line.close("duplicate", ConnectionLost(why, reason="duplicate"), why, patience_s=REPLACE_S)

    def is_same_worker(self, other: Connection) -> bool:
        """Whether both are known to be of one process's directory. A wire that does not say it leaves it open."""
        return bool(self.instance) and self.instance == other.instance

    async def wait_transport_closed(self) -> None:
        """Wait until no byte of it can come or go."""
        await self._line.pump.closed.wait()

    async def answers(self, within_s: float) -> bool:
        """Whether the worker answers a ping. Cancellation changes nothing."""
        with trio.move_on_after(within_s):
            try:
                await self._line.pump.ping()
            except (ConnectionLost, ConnectionClosed):
                return False
            return True
        return False

    # ------------------------------------------------------------ for the lifeline

    def on_called(self, call: int, request: Request) -> None:
        """See `LifelineOwner`."""
        match request:
            case Held() if self._reunion.on_held(call, request):
                pass
            case AskShutdown():
                self._line.pump.reply(call, None)
                self._drain()
            case _:
                self._breach(f"a worker calls `held`, once, and not {type(request).__name__}")

    def on_opened(self, opened: StreamOpened) -> None:
        """See `LifelineOwner`."""
        command = self._commands.get(opened.name)
        if command is None:
            self._line.pump.refuse(opened, f"LocalProtocolError: there is no command {opened.name}")
        else:
            command.on_opened(opened)

    def on_suspended(self, why: TailraceError) -> None:
        """See `LifelineOwner`."""
        log.warning("%s (%s) is away: %s", self.workerName, self.peer, why)
        self._reunion.end_session()
        for command in list(self._commands.values()):
            command.on_suspended()

    def on_resuming(self) -> None:
        """See `LifelineOwner`."""
        self._spawn(self._reunion.go_on)

    def on_ended(self, why: TailraceError) -> None:
        """See `LifelineOwner`."""
        log.info("%s (%s): %s", self.workerName, self.peer, why)
        self._reunion.end_session()
        for command in list(self._commands.values()):
            command.on_lost(self._line.lost())
        for subscription in list(self._subscriptions):
            subscription.fire()

    # ------------------------------------------------------------ for its commands

    def interrupt(self, command: Command, why: str) -> None:
        """Have the worker stop it, without waiting for that."""

        async def interrupt() -> None:
            try:
                await self._interrupt(command, why)
            except TailraceError as error:
                log.info("command %s: its interrupt failed: %s", command.id, error)

        if self.state != "lost":
            self._spawn(interrupt)

    def free(self, command: Command) -> None:
        """Its id can be used again."""
        if self._commands.get(command.id) is command:
            del self._commands[command.id]
            self._freed.ring()
        if self.draining and not self._commands:
            self._shut_down()

    # ------------------------------------------------------------ private

    def _new_command(
        self, impl: RemoteCommandImpl, builder: str, commandId: str, name: str, args: Mapping[str, object]
    ) -> Command:
        proxies = self.createArgsProxies(args)
        writers = {name: value for name, value in proxies.items() if isinstance(value, FileWriterProxy)}
        readers = {name: value for name, value in proxies.items() if isinstance(value, FileReaderProxy)}
        if len(writers) > 1 or len(readers) > 1:
            raise LocalProtocolError("a command has at most one FileWriterImpl and one FileReaderImpl")
        impls: dict[str, ImplKind] = {**dict.fromkeys(writers, "FileWriter"), **dict.fromkeys(readers, "FileReader")}
        request = StartCommand(
            builder=builder,
            command=commandId,
            name=name,
            # What cannot be sent is found by the dialect, before any byte of it is made.
            args={name: cast("Value", value) for name, value in proxies.items() if name not in impls},
            impls=impls,
        )
        proxy = self._proxy(impl)
        if not isinstance(proxy, RemoteCommandProxy):
            raise LocalProtocolError(f"a remoteCommand is a RemoteCommandImpl, not {type(impl).__name__}")
        objects = Objects(
            command=proxy,
            writer=next(iter(writers.values()), None),
            reader=next(iter(readers.values()), None),
            durable_on_return=impl.durable_on_return,
        )
        return Command(self, self._line, request, objects, self._transcript())

    def _transcript(self) -> Transcript:
        encoding = self._info.get("encoding")
        return Transcript(encoding if isinstance(encoding, str) else "utf-8")

    async def _interrupt(self, command: Command, why: str) -> None:
        # In a new session both may be said again, and an interrupt that overtakes its start means nothing.
        if not command.answered.is_set():
            await command.answered.wait()
        if command.refusal is None:
            await self._line.call(InterruptCommand(command.builder, command.id, why))

    def _proxy(self, value: T) -> T | RemoteProxy[object]:
        for impl_class, proxy_class in self.proxies.items():
            if isinstance(value, impl_class):
                return cast("RemoteProxy[object]", proxy_class(value))
        return value

    # for the reunion

    async def greet(self, pump: Pump) -> None:
        """See `reunion.Host`."""
        await self._ask_info(pump)
        if self._lanes.builders:
            await pump.call(SetBuilderList(tuple(self._lanes.plan(self._lanes.builders))))

    def take_over(self, held: HeldCommand, resume: Resume) -> Command:
        """See `reunion.Host`."""
        impl = self._proxy(resume.impl)
        if not isinstance(impl, RemoteCommandProxy):
            raise LocalProtocolError(f"a command's impl is a RemoteCommandImpl, not {type(resume.impl).__name__}")
        objects = Objects(command=impl, writer=None, reader=None, durable_on_return=resume.impl.durable_on_return)
        request = StartCommand(builder=held.builder, command=held.command, name=held.name, args={}, impls={})
        command = Command(self, self._line, request, objects, self._transcript())
        command.begin_at(resume.offset, resume.chain)
        self._commands[held.command] = command
        self._spawn(command.run)
        return command

    async def _ask_info(self, line: Lifeline | Pump) -> dict[str, Value]:
        info = await line.call(GetWorkerInfo())
        if not isinstance(info, dict):
            raise self._breach(f"getWorkerInfo returned {type(info).__name__}, not a map")
        self._info = info
        return dict(info)

    async def _set_builders(self, wanted: Sequence[tuple[str, str]]) -> None:
        planned = tuple(self._lanes.plan(wanted))
        if not self._line.traits.worker_makes_builders:
            await make_builders(self, planned)
        names = await self._line.call(SetBuilderList(planned))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._breach("setBuilderList did not return names")
        self._lanes.set(wanted, names)
        self._builders = {name: Builder(name) for name, _directory in self._lanes.builders}

    async def _lane(self, builder: str) -> str:
        """Where this builder's next command may go. It is idle until the caller's next checkpoint."""
        if (lane := self._idle_lane(builder)) is not None:
            return lane
        async with self._setting:
            if (lane := self._idle_lane(builder)) is None:
                self._lanes.open(builder)
                await self._set_builders(self._lanes.builders)
                lane = self._idle_lane(builder)
        if lane is None:
            raise RemoteError("UnknownBuilder", f"{self.workerName} makes no room for another command of {builder!r}")
        return lane

    def _idle_lane(self, builder: str) -> str | None:
        return self._lanes.idle(builder, {command.builder for command in self._commands.values()})

    def _drain(self) -> None:
        if not self.draining:
            log.info("%s wants to shut down when it is idle", self.workerName)
            self.draining = True
            if not self._commands:
                self._shut_down()

    def _shut_down(self) -> None:
        async def shut_down() -> None:
            try:
                await self.remoteShutdown()
            except TailraceError as error:
                log.info("%s: its shutdown failed: %s", self.workerName, error)

        if self.state != "lost":
            self._spawn(shut_down)

    def _spawn(self, task: Callable[[], Awaitable[object]]) -> None:
        if self._nursery is None:
            raise LocalProtocolError("the connection does not run yet")
        self._nursery.start_soon(task)

    def _breach(self, text: str) -> RemoteProtocolError:
        error = RemoteProtocolError(text)
        self._line.breach(error)
        return error


def _text(what: str, value: object) -> str:
    """What the wire carries as text. A peer would take anything else for a breach, and hang up."""
    if not isinstance(value, str):
        raise LocalProtocolError(f"{what} is a str, not {type(value).__name__}")
    return value


@final
class Subscription:
    """What `notifyOnDisconnect` returns."""

    def __init__(self, cb: Callable[[], object], among: list[Subscription]) -> None:
        self._cb = cb
        self._among = among

    def unsubscribe(self) -> None:
        """Do not call it any more."""
        if self in self._among:
            self._among.remove(self)

    def fire(self) -> None:
        """Call it, for the first and last time."""
        self.unsubscribe()
        call_back(self._cb)


@final
@attrs.frozen
class Builder:
    """A handle on a builder of a worker. Opaque; `str()` gives its name."""

    _name: str

    def __str__(self) -> str:
        return self._name


@final
@attrs.frozen(kw_only=True)
class ConnectionStatistics:
    """What went over a connection, and what is under way."""

    bytes_sent: int
    bytes_received: int
    bytes_queued: int
    streams: int
    calls: int
    commands: int
    rtt_s: float | None
    """The last round trip that was measured by a ping; `None`: there was no silence yet."""
