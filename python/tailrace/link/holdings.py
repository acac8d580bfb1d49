"""What a worker holds for its masters: commands that go on while nobody is connected, until their end is safe.

`Holdings` live as long as the worker's process, its sessions come and go. A `Holding` is one command, and stands for
the master's `RemoteCommandImpl`: it sends the journal, in this session or the next. One that is found by a process
that has just started is adopted, and is like any other from then on.

Without a place to go on (`dial` without `holdings`, or a wire that cannot resume) a session has holdings of its own,
which end with it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, final

import trio

from tailrace._core import Blake3, encode_value
from tailrace.errors import CommandIdInUse, ConnectionClosed, ConnectionLost, RemoteError, describe
from tailrace.link.flow import Inflow, Outflow
from tailrace.link.own import OwnJournal, send_journal
from tailrace.link.proxy import JournalSink, RemoteCommandProxy
from tailrace.link.resume import CommandKey, Resumed
from tailrace.messages import HeldCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tailrace.link.proxy import JournalSource
    from tailrace.link.pump import Pump
    from tailrace.link.stream import Outgoing
    from tailrace.messages import ResumeCommand, StartCommand, StreamOpened, StreamProgress

log = logging.getLogger("tailrace.link")


def key_of(master: str, request: StartCommand) -> CommandKey:
    """The key of a command that a master starts."""
    said = Blake3()
    said.update(encode_value([request.builder, request.command, request.name, request.args, request.impls]))
    return CommandKey(
        master=master, command=request.command, builder=request.builder, name=request.name, digest=said.digest()
    )


@final
class Holdings:
    """Commands by master and id.

    `nursery` is where commands run that are written by hand; it outlives the sessions. A command whose master was
    away for `orphan_timeout_s` is told to `on_orphaned`, once; it is held all the same.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        orphan_timeout_s: float = math.inf,
        on_orphaned: Callable[[CommandKey], None] | None = None,
    ) -> None:
        self.nursery = nursery
        self.orphan_timeout_s = orphan_timeout_s
        self._on_orphaned = on_orphaned
        self._held: dict[tuple[str, str], Holding] = {}

    def of(self, master: str) -> list[Holding]:
        """What is held for this master."""
        return [holding for (owner, _), holding in self._held.items() if owner == master]

    def find(self, master: str, command: str) -> Holding | None:
        """The command of that id."""
        return self._held.get((master, command))

    def hold(self, key: CommandKey) -> Holding:
        """Hold a command from now on, until it is freed.

        Raises:
            CommandIdInUse: one of that id is there.
        """
        if (key.master, key.command) in self._held:
            raise CommandIdInUse(f"command {key.command!r} is still there")
        holding = self._held[key.master, key.command] = Holding(key, self)
        return holding

    def adopt(self, key: CommandKey, source: JournalSource) -> RemoteCommandProxy:
        """Hold a command that an earlier process has started. `send` waits for the master to come.

        Raises:
            CommandIdInUse: one of that id is there.
        """
        holding = self.hold(key)
        holding.keep(source)
        return RemoteCommandProxy(holding, key.command, key)

    def orphaned(self, key: CommandKey) -> None:
        """Nobody has asked for it for too long."""
        log.warning("command %s: its master was away for %g s", key.command, self.orphan_timeout_s)
        if self._on_orphaned is not None:
            self._on_orphaned(key)

    def free(self, holding: Holding) -> None:
        """It is over."""
        name = holding.key.master, holding.key.command
        if self._held.get(name) is holding:
            del self._held[name]


@final
class Holding(JournalSink):
    """One command, until its completion is durable at the master, or the master has forgotten it."""

    def __init__(self, key: CommandKey, holdings: Holdings) -> None:
        self.key = key
        self.download: Inflow | None = None
        self._holdings = holdings
        self._source: JournalSource | None = None
        self._own: OwnJournal | None = None
        self._upload: Outflow | None = None
        # Where the journal goes on in this session; `None`: there is none, or it was not asked for.
        self._pump: Pump | None = None
        self._next = 0
        self._error: RemoteError | ConnectionLost | None = None
        self._changed = trio.Event()

    @property
    def is_away(self) -> bool:
        """Its master is not there, or has not asked for it yet."""
        return self._pump is None

    # what a session says

    def begin(self, pump: Pump) -> None:
        """It was started in this session."""
        self._pump = pump
        self._change()

    def suspend(self) -> None:
        """The session is over; there may be another."""
        if self._pump is not None:
            self._pump = None
            self._change()
            if self._source is not None:
                self._source.spooling(True)
        for flow in (self._upload, self.download):
            if flow is not None:
                flow.suspend()

    def fail(self, error: RemoteError | ConnectionLost) -> None:
        """There will be no other session, or the master does not want it."""
        self._error = self._error or error
        for flow in (self._upload, self.download):
            if flow is not None:
                flow.fail(error)
        self._change()

    def describe(self) -> HeldCommand:
        """What to say of it in `held`."""
        journal = None if self._source is None else self._source.journal
        begin, end = (0, 0) if journal is None else (journal.begin, journal.end)
        return HeldCommand(
            command=self.key.command,
            builder=self.key.builder,
            name=self.key.name,
            begin=begin,
            end=end,
            chain=(journal.chain_at(end) if journal is not None else None) or bytes(32),
            running=journal is None or not journal.ended,
        )

    def resume(self, pump: Pump, request: ResumeCommand) -> Resumed:
        """The master goes on with it, in this session.

        Raises:
            RemoteError: what the master has is more than what is here.
        """
        offset, agrees = self._agree(request)
        self._resume_upload(pump, request.upload)
        self._next, self._pump = offset, pump
        if self._source is not None:
            self._source.spooling(False)
        self._change()
        return Resumed(offset=offset, agrees=agrees, download=None if self.download is None else self.download.taken)

    def on_opened(self, pump: Pump, opened: StreamOpened) -> bool:
        """The master sends a download. Whether it is wanted."""
        if opened.role != "download" or self.download is None or self.download.is_open:
            return False
        self.download.opened(pump.adopt(opened))
        return True

    # what the command says: see `JournalSink`

    def keep(self, source: JournalSource) -> None:
        """This is its journal."""
        self._source = source
        source.spooling(self.is_away)
        self._change()

    async def send(self, source: JournalSource) -> None:
        self.keep(source)
        try:
            while True:
                pump = await self._wait_session()
                try:
                    await send_journal(pump, self.key.command, self._next, source)
                except (ConnectionLost, ConnectionClosed) as error:
                    log.info("command %s: %s", self.key.command, error)
                    if self._pump is pump:
                        self._pump = None
                else:
                    return
        finally:
            self.free()

    async def remote_update(self, updates: Mapping[str, object]) -> None:
        """Append to a journal of the command's own. Waits for room, not for the master."""
        own = self._opened()
        # Who writes in a loop must let the pump have its turn, also while there is room.
        await trio.lowlevel.checkpoint()
        await own.wait_room()
        own.append(updates)

    async def remote_complete(self, failure: BaseException | tuple[str, str] | None = None) -> None:
        """End the journal, and wait until the master has all of it safe."""
        own = self._opened()
        own.finish(describe(failure) if isinstance(failure, BaseException) else failure)
        await own.wait_sent()

    def upload(self) -> Outflow:
        """Its upload, begun if it was not."""
        if self._error is not None:
            raise self._error
        if self._upload is None:
            self._upload = Outflow()
            if self._pump is not None and self._pump.why is None:
                self._open_upload(self._pump, 0)
        return self._upload

    def free(self) -> None:
        """It is over, and its completion is durable; or nobody wants it."""
        if self.download is not None:
            self.download.stop("Cancelled: the command ended")
        self._holdings.free(self)

    # ------------------------------------------------------------ private

    def _agree(self, request: ResumeCommand) -> tuple[int, bool]:
        """Where the journal goes on, and whether both have the same before it (PROTOCOL.md section 9)."""
        if self._source is None:
            begin = end = 0
            chain: bytes | None = bytes(32)
        else:
            journal = self._source.journal
            begin, end = journal.begin, journal.end
            chain = journal.chain_at(request.next)
        if request.next > end:
            raise RemoteError("Damaged", f"the journal ends at {end}, and the master has it up to {request.next}")
        if request.next < begin:
            return begin, False
        if chain is None:
            raise RemoteError("Damaged", f"no record of the journal begins at {request.next}")
        return request.next, chain == request.chain

    def _resume_upload(self, pump: Pump, offset: int | None) -> None:
        if self._upload is None:
            return
        if offset is None:
            self._upload.fail(RemoteError("MasterRestarted", "master restarted"))
        else:
            self._open_upload(pump, offset)

    def _open_upload(self, pump: Pump, offset: int) -> None:
        def open_(offset: int, on_progress: Callable[[StreamProgress], None]) -> Outgoing:
            return pump.open("upload", self.key.command, offset, on_progress)

        assert self._upload is not None
        self._upload.resume(open_, offset)

    async def _wait_session(self) -> Pump:
        with trio.move_on_after(self._holdings.orphan_timeout_s):
            return await self._wait_asked()
        self._holdings.orphaned(self.key)
        return await self._wait_asked()

    async def _wait_asked(self) -> Pump:
        while True:
            if self._error is not None:
                raise self._error
            if self._pump is not None:
                return self._pump
            await self._changed.wait()

    def _opened(self) -> OwnJournal:
        if self._own is None:
            self._own = OwnJournal()
            self._holdings.nursery.start_soon(self._own.run, self)
        return self._own

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
