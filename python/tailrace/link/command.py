"""One command at the master: its start, its journal, its transfers and its end, each told to the Impls in order.

One task lives through all of it (`run`). It has the worker accept the command, then takes the journal as it comes,
hands each batch on, and gives credit back when the Impl has returned: what an Impl is slow to take stalls this stream
and no other. Transfers run beside it, in a nursery of the command, and are over before `remote_complete`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, TypeAlias, final

import attrs
import trio

from tailrace._core import Batch, Ledger
from tailrace.errors import (
    ConnectionClosed,
    ConnectionLost,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
    TailraceError,
    describe,
    remote_error,
)
from tailrace.link import transfer
from tailrace.link.flow import Inflow, Outflow
from tailrace.link.foreign import Raised, call_foreign
from tailrace.messages import ResumeCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tailrace._core import Receipt
    from tailrace.link.lifeline import Lifeline
    from tailrace.link.proxy import FileReaderProxy, FileWriterProxy, RemoteCommandProxy
    from tailrace.link.resume import Resumed
    from tailrace.link.stream import Outgoing
    from tailrace.link.text import Transcript
    from tailrace.messages import StartCommand, StreamOpened, StreamProgress

log = logging.getLogger("tailrace.link")

Failure: TypeAlias = "RemoteError | ConnectionLost | None"


class Host(Protocol):
    """Who a command works for."""

    def interrupt(self, command: Command, why: str) -> None:
        """Have the worker stop it, without waiting for that."""

    def free(self, command: Command) -> None:
        """Its id can be used again."""


@final
@attrs.frozen(kw_only=True)
class Objects:
    """The master's objects that a command talks to."""

    command: RemoteCommandProxy
    writer: FileWriterProxy | None
    reader: FileReaderProxy | None
    durable_on_return: bool


@final
class Command:
    """A command that was asked for, until its completion is durable."""

    def __init__(
        self, host: Host, line: Lifeline, request: StartCommand, objects: Objects, transcript: Transcript
    ) -> None:
        self.id = request.command
        self.builder = request.builder
        self.answered = trio.Event()
        """The worker has accepted or refused it."""
        self.refusal: TailraceError | None = None
        """Why there is no such command; `None` once it was accepted."""
        self._host = host
        self._line = line
        self._request = request
        self._objects = objects
        self._transcript = transcript
        self._ledger = Ledger()
        # A wire without offsets has no receipt of the worker's: the journal was made here, and so was its receipt.
        self._counts = line.traits.offsets
        self._journal = Inflow()
        self._upload = Inflow() if objects.writer is not None else None
        self._download = Outflow() if objects.reader is not None else None
        self._raised: RemoteError | None = None
        self._failure: Failure = RemoteError("RemoteProtocolError", "the journal ended without a completion")
        self._damaged = False
        self._held: Batch | None = None
        # Offsets of the journal: handed to the Impl, taken by it, safe with it, and the end, once it is known.
        self._shown = self._taken = self._durable = 0
        self._final: int | None = None
        self._completed = False

    @property
    def completed(self) -> bool:
        """`remote_complete` has returned: only that it is safe may be waited for."""
        return self._completed

    def begin_at(self, offset: int, chain: bytes) -> None:
        """Before `run`: it was started by an earlier process, which had everything before `offset` safe."""
        self._ledger = Ledger.resumed(offset, chain)
        self._journal.taken = self._shown = self._taken = self._durable = offset
        # Said in the first session: a worker whose ring is full of it waits for that alone.
        self._journal.settle(offset, offset)
        self.answered.set()

    # what the connection says

    def on_opened(self, opened: StreamOpened) -> None:
        """The worker opened a stream of this command, in this session."""
        flow = self._journal if opened.role == "journal" else self._upload if opened.role == "upload" else None
        if flow is None or flow.is_open:
            self._line.pump.refuse(opened, f"LocalProtocolError: command {self.id} takes no {opened.role}")
            return
        if flow is self._journal and opened.offset < flow.taken:
            # PROTOCOL.md section 9: at `next`, or behind what the worker has forgotten.
            text = f"the journal of command {self.id} goes back to {opened.offset}, from {flow.taken}"
            self._line.breach(RemoteProtocolError(text))
            return
        if flow is self._journal and opened.offset != flow.taken:
            self._jump(opened.offset)
        flow.opened(self._line.pump.adopt(opened))

    def on_suspended(self) -> None:
        """The session is over."""
        for flow in (self._journal, self._upload, self._download):
            if flow is not None:
                flow.suspend()

    def resumption(self) -> ResumeCommand:
        """What to say of it in the next session."""
        upload = None if self._upload is None else self._upload.taken
        return ResumeCommand(self.id, self._journal.taken, self._ledger.chain, upload)

    def on_resumed(self, resumed: Resumed) -> None:
        """The worker goes on with it."""
        if not resumed.agrees:
            self._damaged = True
            log.error("command %s is damaged from %d on: the worker's journal is another", self.id, resumed.offset)
        if self._download is None:
            return
        if resumed.download is None:
            self._download.fail(RemoteError("Stopped", "the worker wants no more of it"))
        else:
            self._download.resume(self._open_download, resumed.download)

    def on_lost(self, why: ConnectionLost) -> None:
        """There will be no other session, or none that knows it."""
        for flow in (self._journal, self._upload, self._download):
            if flow is not None:
                flow.fail(why)
        self._settle()

    def durable(self, offset: int) -> None:
        """The Impl has everything before `offset` safe."""
        if self._objects.durable_on_return:
            raise LocalProtocolError(f"command {self.id}: its Impl is durable on return")
        if not self._counts:
            return
        if not self._durable <= offset <= self._shown:
            raise LocalProtocolError(f"command {self.id}: {offset} is not between {self._durable} and {self._shown}")
        self._durable = offset
        self._settle()

    # the life of it

    async def run(self) -> None:
        """From the start call to `remote_complete`. Cancelled: `remote_complete(ConnectionLost)`, within a deadline."""
        if not self.answered.is_set() and not await self._start():
            return
        failure: Failure = None
        followed = False
        try:
            failure = await self._live()
            followed = True
        finally:
            if not followed:
                deadline = trio.current_time() + self._line.limits.close_timeout_s
                with trio.CancelScope(shield=True, deadline=deadline):
                    await self._complete(ConnectionLost("this side closed the connection"))
        await self._complete(failure)

    async def _start(self) -> bool:
        """Whether it was accepted."""
        accepted = False
        try:
            await self._line.call(self._request)
            accepted = True
        except (ConnectionLost, ConnectionClosed) as error:
            # A journal that was opened is an answer too.
            accepted = self._journal.began
            self.refusal = error
        except TailraceError as error:
            self.refusal = error
        finally:
            if accepted:
                self.refusal = None
            else:
                self.refusal = self.refusal or ConnectionClosed()
                self._host.free(self)
            self.answered.set()
        return accepted

    async def _live(self) -> Failure:
        upload, download = self._upload, self._download
        if upload is None and download is None:
            return await self._follow()
        async with trio.open_nursery() as nursery:
            if upload is not None and self._objects.writer is not None:
                nursery.start_soon(self._receive, upload, self._objects.writer)
            if download is not None and self._objects.reader is not None:
                nursery.start_soon(self._send, download, self._objects.reader)
            failure = await self._follow()
            # A transfer that is not over when its command is has failed.
            nursery.cancel_scope.cancel()
        return failure

    async def _receive(self, upload: Inflow, writer: FileWriterProxy) -> None:
        try:
            content = await transfer.receive(self._line, upload, writer, self.id)
        finally:
            upload.stop("Cancelled: the command ended before its upload")
        self._tell(content)

    async def _send(self, download: Outflow, reader: FileReaderProxy) -> None:
        if self._line.state == "attached" and not download.is_open:
            download.resume(self._open_download)
        self._tell(await transfer.send(download, reader, self.id))

    def _open_download(self, offset: int, on_progress: Callable[[StreamProgress], None]) -> Outgoing:
        return self._line.pump.open("download", self.id, offset, on_progress)

    def _tell(self, content: bool) -> None:
        """Where the worker does not hear that a transfer was given up, it is at least not to go on with it."""
        if not content and not self._line.traits.offsets:
            self._host.interrupt(self, "the master gave the transfer up")

    # ------------------------------------------------------------ the journal

    async def _follow(self) -> Failure:
        """Take the journal to its end; what `remote_complete` is to be told."""
        try:
            while (batch := await self._journal.take(self._line.limits.update_bytes_max)) is not None:
                if self._counts:
                    self._ledger.add(batch)
                for part in self._parts(batch):
                    await self._show(part)
            if self._held is not None:
                await self._show(self._held)
        except RemoteProtocolError as error:
            # Records that are none.
            self._line.breach(error)
            self._failure = self._line.lost()
        except (RemoteError, ConnectionLost) as error:
            self._failure = error
        return self._failure if isinstance(self._failure, ConnectionLost) else self._raised or self._failure

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """As the Impl is to see them: what `complete` ends together with the receipt behind it."""
        if self._held is not None:
            batch = Batch.parse(bytes(self._held.raw) + bytes(batch.raw), self._held.start)
            self._held = None
        for part in batch.parts():
            if not part.complete:
                yield part
            elif part.end == batch.end and part.receipt() is None:
                self._hold(part)
            else:
                yield Batch.parse(batch.raw[part.start - batch.start :], part.start)
                return

    def _hold(self, part: Batch) -> None:
        """Wait for the receipt. What is held must not use up the credit that lets the receipt pass."""
        self._held = part
        if self._counts:
            self._taken = part.end
            self._settle()

    async def _show(self, part: Batch) -> None:
        """To the Impl, and give credit back when it has returned."""
        is_last = part.complete
        receipt = part.receipt() if is_last else None
        agrees = None if receipt is None else not self._counts or self._agrees(receipt)
        if agrees is False:
            log.warning("command %s is damaged: the worker's receipt is not what was received", self.id)
        self._shown = part.end
        if self._raised is None:
            try:
                for updates in self._transcript.updates(part, agrees):
                    await call_foreign(self._objects.command.callRemote, "update", updates)
            except Raised as raised:
                raised.report("command %s: remote_update raised", self.id)
                self._raised = RemoteError(*describe(raised.error))
                self._host.interrupt(self, f"remote_update raised {raised}")
        if is_last:
            self._failure = _failure(part)
            # The end is taken when `remote_complete` has returned: until then a worker keeps it.
            self._final = part.end
        else:
            self._take(part.end)

    def _take(self, offset: int) -> None:
        self._taken = offset
        # Where there are no offsets there is nobody who waits for more than that it was taken.
        if self._objects.durable_on_return or self._raised is not None or not self._counts:
            self._durable = offset
        self._settle()

    def _settle(self) -> None:
        self._journal.settle(self._taken, min(self._durable, self._taken))
        if self._completed and (self._durable == self._final or self._journal.error is not None):
            if self._final is not None:
                self._journal.finish(self._final)
            self._host.free(self)

    def _agrees(self, receipt: Receipt) -> bool:
        return not self._damaged and self._ledger.agrees(receipt)

    def _jump(self, offset: int) -> None:
        """The worker goes on elsewhere than where we stopped."""
        self._damaged = True
        log.error("command %s is damaged: its journal goes on at %d, not at %d", self.id, offset, self._journal.taken)
        self._ledger = Ledger.resumed(offset, self._ledger.chain)
        self._journal.taken = offset

    # ------------------------------------------------------------ the end

    async def _complete(self, failure: Failure) -> None:
        try:
            await call_foreign(self._objects.command.callRemote, "complete", failure)
        except Raised as raised:
            raised.report("command %s: remote_complete raised", self.id)
        finally:
            self._completed = True
            if self._final is None:
                # There is no end that could become durable: what is left of the stream is let go.
                self._durable = self._final = self._shown
            self._take(self._final)


def _failure(part: Batch) -> RemoteError | None:
    failure = part.failure()
    return remote_error(*failure) if failure is not None else None
