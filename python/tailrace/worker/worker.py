"""What a worker does when a master calls. A `Worker` lives as long as the process, an `Attachment` as a connection."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, final

import trio

from tailrace.errors import CommandIdInUse, LimitExceeded, RemoteError, UnknownCommand
from tailrace.link.holdings import Holdings

from .background import background
from .commands import PLAIN, SUPERVISED
from .commands.child import error_text
from .commands.command import Context
from .info import worker_info
from .journal import MemoryOutput
from .label import Label
from .leftovers import remove_leftovers
from .running import LeftJob, PlainJob, Restarted, Running, SupervisedJob
from .supervisors import open_supervisors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from tailrace._core import Value
    from tailrace.limits import Limits
    from tailrace.link import RemoteCommandProxy
    from tailrace.link.resume import CommandKey

    from .config import Manners
    from .running import Job
    from .supervisors import Left, Supervisors

logger = logging.getLogger("tailrace.worker")

SUPERVISORS = ".tailrace"
"""Where supervisors keep their journals, in the worker's directory."""

IDLE_SUPERVISORS_MAX = 16
"""How many supervisors wait for another command: as many as a busy machine has commands at once. Each holds a ring on
the disk, and little memory."""

STOP_S = 10.0
"""How long interrupted commands may take to say that they ended, before the worker goes."""


DETACH_LOOK_S = 0.02
"""How often one looks whether a worker that is to go may."""


@asynccontextmanager
async def open_worker(basedir: Path, manners: Manners, limits: Limits) -> AsyncIterator[Worker]:
    """A worker in `basedir`, with the commands that an earlier one has left there.

    On exit whatever still runs and was not detached is killed.
    """
    failure: Exception | None = None
    opened = open_supervisors(
        basedir / SUPERVISORS,
        spool_bytes_max=limits.spool_bytes_max,
        when_full=manners.when_full,
        idle_max=IDLE_SUPERVISORS_MAX,
    )
    async with opened as supervisors, background() as nursery:
        try:
            worker = Worker(basedir, manners, limits, supervisors, nursery)
            await worker.take_up(supervisors.left)
            worker.take_up_noted(supervisors.noted)
            yield worker
        except Exception as error:
            failure = error
    # Raised here, so that it comes out as it is and not in a group.
    if failure is not None:
        raise failure


@final
class Worker:
    """All commands of a worker, and whether it takes more of them."""

    def __init__(
        self, basedir: Path, manners: Manners, limits: Limits, supervisors: Supervisors, nursery: trio.Nursery
    ) -> None:
        self.basedir = basedir
        self.manners = manners
        self.limits = limits
        self.supervisors = supervisors
        self.stopped = trio.Event()
        """Set when the worker is to go: after `remoteShutdown`, or when it is drained."""
        self.draining = False
        self.detached = False
        """What runs is left to the next process."""
        self.master_returns = True
        """Whether the master that is there, or was last, can come back to its commands."""
        self.holdings = Holdings(nursery, orphan_timeout_s=limits.orphan_timeout_s, on_orphaned=self._orphaned)
        self._nursery = nursery
        self._running: set[Running] = set()
        self._named: dict[tuple[str, str], Running] = {}
        self._idle = trio.Event()
        self._idle.set()
        self._attachments = 0
        self.ask_shutdown: Callable[[], Awaitable[None]] | None = None
        """While a master is there that can give notice: ask it for an end, and wait until it has come."""

    def attachment(self) -> Attachment:
        """What a new connection calls."""
        self._attachments += 1
        return Attachment(self, self._attachments)

    @property
    def commands(self) -> int:
        """How many commands run."""
        return len(self._running)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Takes no command any more, waits until none runs, and sets `stopped`. After `timeout_s` it interrupts them.

        A master that can be asked for it ends its build first, for which it may need more commands. Cancelled, the
        worker still takes no command.
        """
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            if self.ask_shutdown is not None:
                await self.ask_shutdown()
            self.draining = True
            await self._idle.wait()
        self.draining = True
        await self.interrupt_all("the worker stops")
        self.stopped.set()

    async def detach(self, timeout_s: float) -> None:
        """Takes no command any more, leaves those that run to the next process, and sets `stopped`.

        Commands that need this process are waited for, at most `timeout_s`, and then interrupted. A master that cannot
        come back to its commands has all of them drained.
        """
        if not self.master_returns:
            return await self.drain(timeout_s)
        self.draining = True
        with trio.move_on_after(timeout_s):
            await self._wait_detachable()
        for running in self._steered():
            await running.interrupt("the worker stops")
        with trio.move_on_after(STOP_S):
            await self._wait_detachable()
        self.detached = True
        for running in self._running.difference(self._steered()):
            logger.info("%s: runs on; the next worker in this directory goes on with it", running.title)
            running.detach()
        self.stopped.set()

    async def _wait_detachable(self) -> None:
        while self._steered():  # noqa: ASYNC110 - of a child that was started no event tells
            await trio.sleep(DETACH_LOOK_S)

    def _steered(self) -> list[Running]:
        """The commands that come to no end without this process."""
        return [running for running in self._running if not running.can_detach]

    async def take_up(self, left: list[Left]) -> None:
        """Goes on with what an earlier process has left."""
        for command in left:
            key = command.label.key
            try:
                proxy = self.holdings.adopt(key, command.supervised)
            except CommandIdInUse:
                logger.error("%s %s: there are two of it, and one is ended", key.name, key.command)
                await command.supervised.aclose()
                continue
            logger.info("%s %s: left by an earlier worker in this directory; it goes on", key.name, key.command)
            job = LeftJob(command.supervised, command.label.started)
            running = Running(job, f"{key.name} {key.command}", proxy.send, term_s=command.label.term_s)
            self.start(key.master, key.command, running)

    def take_up_noted(self, noted: list[tuple[Label, Path]]) -> None:
        """Says of commands that ended with an earlier process that they did."""
        for label, path in noted:
            key, out = label.key, MemoryOutput()
            try:
                proxy = self.holdings.adopt(key, out)
            except CommandIdInUse:
                path.unlink(missing_ok=True)
                continue
            logger.info("%s %s: not done by an earlier worker in this directory, which is said", key.name, key.command)
            job = PlainJob(Restarted(), out, interrupted_rc=-1, note=path)
            self.start(key.master, key.command, Running(job, f"{key.name} {key.command}", proxy.send))

    async def wait_idle(self) -> None:
        """Until no command runs."""
        await self._idle.wait()

    async def interrupt_all(self, why: str) -> None:
        """Interrupts all commands, and waits a bounded time until they have ended and the master knows it."""
        for running in list(self._running):
            await running.interrupt(why)
        with trio.move_on_after(STOP_S):
            await self._idle.wait()

    def start(self, owner: str, command: str, running: Running) -> None:
        """Lets a command of this owner, a master or a connection, run in the background."""
        self._running.add(running)
        self._named[owner, command] = running
        if self._idle.is_set():
            self._idle = trio.Event()
        self._nursery.start_soon(self._run, owner, command, running)

    def find(self, owner: str, command: str) -> Running | None:
        """The owner's command of that id, while it runs or its end is not safe yet."""
        return self._named.get((owner, command))

    def of(self, owner: str) -> list[Running]:
        """All of the owner's commands."""
        return [running for (name, _), running in self._named.items() if name == owner]

    def tidy(self, keep: set[str]) -> None:
        """Removes directories that belong to no builder, in the background.

        A builder in the worker's own directory claims all that is in it.
        """
        if "." not in keep:
            self._nursery.start_soon(remove_leftovers, self.basedir, keep)

    def _orphaned(self, key: CommandKey) -> None:
        running = self.find(key.master, key.command)
        if running is not None:
            self._nursery.start_soon(partial(running.interrupt, "its master has not come back", orphaned=True))

    async def _run(self, owner: str, command: str, running: Running) -> None:
        try:
            await running.run()
        except Exception:
            # The master hears of it by the stream's reset. A worker outlives the death of a supervisor.
            logger.exception("%s: given up", running.title)
        finally:
            if self._named.get((owner, command)) is running:
                del self._named[owner, command]
            self._running.discard(running)
            if not self._running:
                self._idle.set()


@final
class Attachment:
    """What one connection's master may call: the handler of `tailrace.link.dial`."""

    def __init__(self, worker: Worker, serial: int) -> None:
        self._worker = worker
        # Whose commands they are: a master's, who comes back to them, or else this connection's.
        self._owner = f"connection {serial}"
        self._outlives = False
        self._builders: dict[str, str] = {}

    async def lost(self, why: str) -> None:
        """The connection is over. What its master cannot come back to is interrupted, or runs on for nobody."""
        if self._outlives or self._worker.manners.keep_lost_commands:
            return
        with trio.move_on_after(STOP_S, shield=True):
            for running in self._worker.of(self._owner):
                await running.interrupt(why)

    def attached(self, master: str) -> None:
        """This is the master, if it can come back to its commands over another connection."""
        self._worker.master_returns = bool(master)
        if master:
            self._owner, self._outlives = master, True

    async def print(self, message: str) -> None:
        """Writes the message to the worker's log."""
        logger.info("message from the master: %s", message)
        await trio.lowlevel.checkpoint()

    async def getWorkerInfo(self) -> dict[str, Value]:
        return await trio.to_thread.run_sync(worker_info, self._worker.basedir, self._worker.manners)

    async def setBuilderList(self, builders: list[tuple[str, str]]) -> list[str]:
        """Replaces the list of builders, and makes their directories. Commands of builders that are gone run on."""
        wanted = {name: _relative(directory) for name, directory in builders}
        for directory in wanted.values():
            await self._make_builder_directory(directory)
        self._builders = wanted
        # A builder in the worker's own directory owns all that is in it.
        if self._worker.manners.delete_leftover_dirs and "." not in wanted.values():
            self._worker.tidy({directory.split("/", 1)[0] for directory in wanted.values()})
        return list(wanted)

    async def startBuild(self, builder: str) -> None:
        self._builder_dir(builder)
        await trio.lowlevel.checkpoint()

    async def startCommand(
        self, builder: str, command: str, name: str, args: Mapping[str, object], proxy: RemoteCommandProxy
    ) -> None:
        """Accepts a command, which then runs in the background; or raises what refuses it.

        That an id is not in use twice, `link` has seen to.
        """
        if self._worker.draining:
            raise RemoteError("Draining", "this worker stops soon and takes no new commands")
        if self._worker.commands >= self._worker.limits.commands_max:
            raise LimitExceeded(f"{self._worker.commands} commands run already, which is the limit of this worker")
        context = Context(
            command=command,
            name=name,
            basedir=self._worker.basedir,
            builder_dir=self._builder_dir(builder),
            args=args,
        )
        term_s = context.arguments.seconds("sigtermTime") or 0
        returns = proxy.key if proxy.key is not None and proxy.key.master else None
        job = await self._job(context, None if returns is None else Label.of(returns, term_s))
        keep_lost = self._worker.manners.keep_lost_commands
        running = Running(job, f"{name} {command}", proxy.send, term_s=term_s, keep_lost=keep_lost)
        self._worker.start(self._owner, command, running)

    async def interruptCommand(self, builder: str, command: str, why: str) -> None:
        """Interrupts a command. One that is not there, or over, is fine."""
        del builder
        if (running := self._worker.find(self._owner, command)) is not None:
            await running.interrupt(why)
        await trio.lowlevel.checkpoint()

    async def shutdown(self) -> None:
        """Makes the worker end."""
        logger.info("the master shuts this worker down")
        self._worker.stopped.set()
        await trio.lowlevel.checkpoint()

    async def _job(self, context: Context, label: Label | None) -> Job:
        """A command of that name, its arguments checked, its journal open. A label: its master can come back to it."""
        # The number keeps apart what is started and what of another command of that id is not quite dead.
        name = f"{context.command}.{secrets.token_hex(4)}"
        if entry := PLAIN.get(context.name):
            plain = entry.make(context)
            note = None if label is None else await self._worker.supervisors.note(name, label)
            return PlainJob(plain, MemoryOutput(), entry.interrupted_rc, note)
        make = SUPERVISED.get(context.name)
        if make is None:
            raise UnknownCommand(f"this worker has no command {context.name!r}")
        command = make(context)
        return SupervisedJob(command, await self._worker.supervisors.start(name, label), returns=label is not None)

    def _builder_dir(self, builder: str) -> Path:
        if not builder:
            # Of a master that makes the builders' directories, and gives paths that are absolute.
            return self._worker.basedir
        if builder not in self._builders:
            raise RemoteError("UnknownBuilder", f"there is no builder {builder!r} on this worker")
        return self._worker.basedir / self._builders[builder]

    async def _make_builder_directory(self, directory: str) -> None:
        path = self._worker.basedir / directory
        try:
            await trio.to_thread.run_sync(lambda: path.mkdir(parents=True, exist_ok=True), abandon_on_cancel=True)
        except OSError as error:
            raise RemoteError("OSError", f"cannot make the builder's directory {path}: {error_text(error)}") from error


def _relative(directory: str) -> str:
    """A builder's directory, which must lie in the worker's."""
    normal = os.path.normpath(directory or ".")
    if os.path.isabs(normal) or normal.split("/", 1)[0] in ("..", SUPERVISORS) or "\0" in normal:
        raise RemoteError("WrongArgument", f"the builder's directory {directory!r} is not below the worker's")
    return normal
