"""The shipped master: listeners, workers, runs and their store in one nursery."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio

from tailrace.errors import ConnectionClosed, ConnectionLost, LocalProtocolError, RemoteError, TailraceError, describe
from tailrace.limits import Limits
from tailrace.link import Connection, Listener, Resume
from tailrace.logs import LogStore, RunInfo, new_id, open_store
from tailrace.master.command import AwaitedCommand, RunCommand, TransferCommand, title
from tailrace.master.config import check_version, master_id, serve_lock
from tailrace.master.roster import BASE_BUILDER, Attachment, Roster
from tailrace.master.runs import Run

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from tailrace.logs import Durability, WhenFull

logger = logging.getLogger("tailrace.master")

_CLOSING_S: Final = 5.0
"""How long runs may take to be written down when the master stops. Each needs a sync or two of a busy disk."""


_SETTLING_S: Final = 1.0
"""How long a disk may take for the last runs, so that their workers need not keep them for the next process."""

_BUILDERS_MAX: Final = 500
"""A worker on Perspective Broker can have a thousand (1,024 references); those that come later need room too."""


@asynccontextmanager
async def open_master(
    state_dir: str | os.PathLike[str] | None = None,
    *,
    listen: Sequence[str] = (),
    accounts: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    durability: Durability = "disk",
    when_full: WhenFull = "wait",
) -> AsyncIterator[Master]:
    """Serve a master inside the `async with`: its workers attach, its runs are kept in `state_dir`.

    With `state_dir=None` nothing stays on disk. On the way out connections are closed and every run is written down.
    A worker keeps what it sent until it is on the master's disk; with `durability="relaxed"` (and without `state_dir`)
    until the master's kernel has it: then no byte is lost if the master dies, but the last ones if its machine does.
    While the disk is full runs wait for room; with `when_full="gap"` they go on, and their logs say what they lack.

    Raises:
        OSError: an endpoint cannot be listened on; the text says which.
        StoreError: `state_dir` was written by a newer version, or another master has it.
    """
    limits = limits or Limits()
    with _unwrapped(), _directory(state_dir) as directory:
        async with (
            open_store(directory, "relaxed" if state_dir is None else durability, when_full) as store,
            trio.open_nursery() as nursery,
        ):
            identity = await trio.to_thread.run_sync(master_id, directory)
            master = Master(identity, store, Roster(accounts or {}), nursery, limits, tls)
            master.keeps_runs = state_dir is not None
            nursery.start_soon(master.lose_orphans)
            try:
                for endpoint in listen:
                    await master.listen(endpoint)
                yield master
            finally:
                with trio.move_on_after(_CLOSING_S, shield=True):
                    await master.aclose()
                nursery.cancel_scope.cancel()


@final
class Master:
    """Workers by name, and the commands that run on them. Made by `open_master`."""

    def __init__(
        self,
        identity: str,
        store: LogStore,
        roster: Roster,
        nursery: trio.Nursery,
        limits: Limits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.masterId = identity
        self.store = store
        self.roster = roster
        self._nursery = nursery
        self._limits = limits
        self._tls = tls
        self._listeners: list[Listener] = []
        self.connections: dict[str, Connection] = {}
        self.keeps_runs = False
        """Runs go on when it stops: a later process finds them in its store."""
        self._live: dict[str, AwaitedCommand] = {}
        self._idle = trio.Event()
        self._closing = False

    @property
    def endpoints(self) -> list[str]:
        """Where workers attach, with real ports."""
        return [listener.endpoint for listener in self._listeners]

    @property
    def workers(self) -> Mapping[str, Connection]:
        """The attached workers."""
        return self.roster

    async def listen(self, endpoint: str) -> None:
        """Let workers attach at one more endpoint, until the master closes. Cancelled: not listening.

        Raises:
            OSError: it cannot be listened on; the text says which, and why.
        """
        listener = Listener(self, endpoint, tls=self._tls, limits=self._limits)
        for name, secret in self.roster.accounts.items():
            listener.updateRegistration(name, secret)
        await self._nursery.start(listener.serve)
        self._listeners.append(listener)

    async def wait_for_worker(self, name: str) -> Connection:
        """The worker's connection, as soon as it is attached."""
        return await self.roster.wait_attached(name)

    def register(self, name: str, secret: str | None) -> None:
        """Let worker `name` attach with `secret` from now on; `None` forgets it, and closes its connection."""
        if secret is None:
            self.roster.accounts.pop(name, None)
        else:
            self.roster.accounts[name] = secret
        for listener in self._listeners:
            listener.updateRegistration(name, secret)
        if secret is None and name in self.roster:
            self.roster[name].loseConnection()

    async def start(
        self, worker: str | None, command: str, args: Mapping[str, object], *, builder: str | None = None
    ) -> Run:
        """Start a command and keep its log; returns when the worker has accepted it.

        Without `worker` the least busy one gets it; without `builder` it runs in the worker's base directory, else in
        the builder's, which is made. `args` may hold Impls. Cancelled, it may have started: then it is interrupted.

        Raises:
            LocalProtocolError: no such worker is attached, or `builder` cannot name a directory.
            RemoteError: the worker refuses the command.
            ConnectionLost: the worker went meanwhile.
        """
        attachment, name = self._choose(worker)
        directory = await self._set_builder(attachment, name, builder)
        info = RunInfo(
            id=new_id(), worker=name, builder=builder, command=command, title=title(command, args), started=time.time()
        )
        impl = RunCommand(info.id, name, await self.store.create(info))
        await self._launch(attachment, impl, directory, command, args)
        return Run(impl, self.store)

    async def transfer(self, worker: str, command: str, args: Mapping[str, object]) -> TransferCommand:
        """Start a command in the base directory of `worker` of which nothing is kept. Else as `start`."""
        attachment, name = self._choose(worker)
        impl = TransferCommand(new_id(), name)
        await self._launch(attachment, impl, BASE_BUILDER, command, args)
        return impl

    def live(self, run_id: str) -> AwaitedCommand | None:
        """The command of that id, while it runs, as far as its worker has been here since this process began."""
        return self._live.get(run_id)

    async def stop(self, run_id: str, why: str) -> None:
        """Have a run stopped; returns when its worker knows. One that has ended is left alone.

        A run whose worker has not come back since the master was restarted is lost by it; the worker ends what is
        left of it when it comes.
        """
        if (command := self.live(run_id)) is not None:
            await command.interrupt(why)
        elif any(info.id == run_id for info in self.store.abandoned()):
            await self.store.lose(run_id, f"{why}, while its worker was away")

    async def aclose(self) -> None:
        """Take no more workers, close all connections, and return when the runs that this ended are written down.

        Runs whose workers hold them go on: the next process that opens this directory goes on with their logs.

        Cancelled: the connections are closed; some runs may not be written down.
        """
        self._closing = True
        for impl in self._live.values():
            impl.outcome.parting = "the master stopped"
            impl.outcome.goes_on = self.keeps_runs and impl.outlives_connection
        with trio.move_on_after(_SETTLING_S):
            for connection in list(self.roster.values()):
                await connection.wait_settled()
        for connection in list(self.roster.values()):
            connection.loseConnection()
        while self._live:
            self._idle = trio.Event()
            await self._idle.wait()

    async def newConnection(self, conn: Connection, workerName: str) -> bool:
        """Called by the Listener when a worker has logged in."""
        if self._closing or workerName not in self.roster.accounts:
            return False
        try:
            builders = {BASE_BUILDER: "."}
            if conn.info.get("delete_leftover_dirs"):
                # All at once: it takes the directory of a builder that is missing for a leftover.
                builders |= {name: name for name in await self._known_builders(workerName)}
            await conn.remoteSetBuilderList(list(builders.items()))
            await self._lose_unknown(workerName, await conn.held_commands())
        except (ConnectionLost, ConnectionClosed, RemoteError) as error:
            logger.warning("worker %s: %s", workerName, error)
            return False
        await self.store.note_worker(workerName, conn.instance, _for_the_record(conn.info))
        self.roster.attach(conn, builders)
        return True

    async def resumeCommand(self, conn: Connection, commandId: str, args: Mapping[str, object]) -> Resume | None:
        """Called by the Listener for a command of a worker that this process has not started: a run of an earlier
        one."""
        known = {info.id: info for info in self.store.abandoned()}.get(commandId)
        if known is None or known.worker != conn.workerName:
            return None
        found = await self.store.replay(known)
        writer = await self.store.resume(commandId)
        # Only what is on the disk may be forgotten by the worker.
        await writer.sync()
        impl = RunCommand(commandId, known.worker, writer)
        impl.outcome.values.update(found.values)
        builder = args.get("builder")
        self._attend(self.roster.attachment(known.worker), impl, builder if isinstance(builder, str) else "", {})
        return Resume(impl, writer.end, writer.chain)

    async def lose_orphans(self) -> None:
        """Runs of an earlier process whose workers do not come back are lost in the end. Runs as long as the master."""
        await trio.sleep(self._limits.orphan_timeout_s)
        for info in self.store.abandoned():
            await self.store.lose(info.id, f"worker {info.worker} has not come back since the master was restarted")

    async def _lose_unknown(self, worker: str, held: frozenset[str]) -> None:
        """Runs of an earlier process that the worker does not hold any more."""
        for info in self.store.abandoned():
            if info.worker == worker and info.id not in held:
                await self.store.lose(info.id, f"worker {worker} does not know the run any more")

    async def _known_builders(self, worker: str) -> list[str]:
        seen = [seen for seen in await self.store.builders() if seen.worker == worker]
        seen.sort(key=lambda builder: builder.last_seen)
        return [builder.name for builder in seen[-_BUILDERS_MAX:]]

    def _choose(self, worker: str | None) -> tuple[Attachment, str]:
        name = self.roster.least_busy() if worker is None else worker
        return self.roster.attachment(name), name

    async def _set_builder(self, attachment: Attachment, worker: str, builder: str | None) -> str:
        """The builder to run in, which the worker knows then."""
        if builder is None:
            return BASE_BUILDER
        if builder in {"", ".", ".."} or "/" in builder or "\0" in builder:
            raise LocalProtocolError(f"{builder!r} cannot name a builder: it names one directory in the worker's")
        async with attachment.setting:
            if builder not in attachment.builders:
                wanted = attachment.builders | {builder: builder}
                await attachment.connection.remoteSetBuilderList(list(wanted.items()))
                attachment.builders = wanted
                await self.store.note_builder(worker, builder)
        return builder

    async def _launch(
        self, attachment: Attachment, impl: AwaitedCommand, builder: str, command: str, args: Mapping[str, object]
    ) -> None:
        connection = attachment.connection
        self._attend(attachment, impl, builder, args)
        try:
            await connection.remoteStartCommand(impl, builder, impl.id, command, dict(args))
        except (RemoteError, ConnectionLost) as error:
            await impl.remote_complete(error)
            raise
        except ConnectionClosed as error:
            await impl.remote_complete(ConnectionLost(str(error)))
            raise
        except TailraceError as error:
            await impl.remote_complete(RemoteError(*describe(error)))
            raise

    def _attend(self, attachment: Attachment, impl: AwaitedCommand, builder: str, args: Mapping[str, object]) -> None:
        self._live[impl.id] = impl
        attachment.running += 1
        impl.on_end(lambda: self._ended(attachment, impl))
        impl.starts(attachment.connection, builder, args)

    def _ended(self, attachment: Attachment, impl: AwaitedCommand) -> None:
        attachment.running -= 1
        self._live.pop(impl.id, None)
        if not self._live:
            self._idle.set()


def _for_the_record(info: Mapping[str, object]) -> dict[str, object]:
    """What a worker says of itself, without its environment: that may hold what is nobody's business."""
    return {key: value for key, value in info.items() if key != "environ"}


@contextmanager
def _directory(state_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The state's directory; without a name one in memory, which goes with the block."""
    if state_dir is not None:
        directory = Path(state_dir)
        directory.mkdir(parents=True, exist_ok=True)
        check_version(directory)
        with serve_lock(directory):
            yield directory
        return
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    temporary = Path(tempfile.mkdtemp(prefix="tailrace-", dir=parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _unwrapped() -> Iterator[None]:
    """The nurseries inside wrap what goes through them; a single exception comes out as itself again."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, BaseExceptionGroup):
            raise
        raise error from error.__cause__
