"""One command while it runs: the work, the sending of its journal, and the ways to stop it."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar, final

import trio

from tailrace.errors import ConnectionLost, TailraceError

from .commands.child import error_rc, error_text
from .commands.command import Outcome, Output, conclude
from .supervisor import SupervisorLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tailrace._core import Journal

    from .commands.command import Command
    from .journal import MemoryOutput
    from .supervisor import Supervised

OutputT = TypeVar("OutputT", bound=Output)

logger = logging.getLogger("tailrace.worker")

STOP_S = 30.0
"""How long an interrupted command may take, beyond the time that it gives TERM, before it is given up: a supervisor
needs up to 15 s for what will not die, on a machine that swaps twice that."""


WORKER_RESTARTED = ("WorkerRestarted", "the worker was restarted, and what the command had yet to do went with it")


class Sent(Protocol):
    """The reading end of an `Output`, as `link` takes it."""

    @property
    def journal(self) -> Journal: ...
    async def wait_grown(self, end: int) -> None: ...
    def released(self, offset: int) -> None: ...
    def spooling(self, on: bool) -> None: ...


class Job(Protocol):
    """The two kinds of commands, seen alike."""

    @property
    def sent(self) -> Sent: ...
    async def work(self) -> None:
        """Does the work and writes the end of the journal."""

    async def interrupt(self, why: str, *, orphaned: bool = False) -> None:
        """Makes `work` come to its end soon. Harmless when it is over."""

    async def aclose(self) -> None:
        """Nothing is left afterwards, if it was not detached. Bounded, and shielded from cancellation."""

    @property
    def can_detach(self) -> bool:
        """Whether it comes to its end without this process, and a later one can go on with its journal."""

    def detach(self) -> None:
        """Leaves it to a later process."""


@final
class Running:
    """A command, from its start until its completion is durable at the master, or nobody is there to know it."""

    def __init__(
        self,
        job: Job,
        title: str,
        send: Callable[[Sent], Awaitable[None]],
        *,
        term_s: float = 0,
        keep_lost: bool = False,
    ) -> None:
        """`keep_lost`: it runs on when its master is lost."""
        self.title = title
        self._stop_s = STOP_S + term_s
        self._job = job
        self._send = send
        self._keep_lost = keep_lost
        self._interrupted = False
        self._nursery: trio.Nursery | None = None
        self._detached = False

    async def run(self) -> None:
        """Runs it to its end. Cancelled, it kills what runs and reports nothing more."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._job.work)
                if self._interrupted:
                    nursery.start_soon(self._give_up, nursery)
                try:
                    await self._deliver()
                finally:
                    # An interrupt may come while the nursery is left, or has closed: it takes in nothing more.
                    self._nursery = None
                nursery.cancel_scope.cancel()
        finally:
            await self._job.aclose()

    async def interrupt(self, why: str, *, orphaned: bool = False) -> None:
        """Asks it to end; returns at once. A second time is harmless. `orphaned`: its master does not come back."""
        if not self._interrupted:
            logger.info("%s: interrupted: %s", self.title, why)
            self._interrupted = True
            if self._nursery is not None:
                self._nursery.start_soon(self._give_up, self._nursery)
        await self._job.interrupt(why, orphaned=orphaned)

    @property
    def can_detach(self) -> bool:
        """Whether it comes to its end without this process, and a later one can go on with its journal."""
        return self._job.can_detach

    def detach(self) -> None:
        """Leaves it to a later process; whatever is done with it here changes nothing any more."""
        self._detached = True
        self._job.detach()

    async def _deliver(self) -> None:
        try:
            await self._send(self._job.sent)
        except TailraceError as error:
            if self._detached:
                return
            # Nobody listens any more: stop the work, and let it write its end into the void.
            if self._keep_lost and isinstance(error, ConnectionLost):
                logger.info("%s: runs on without its master: %s", self.title, error)
            else:
                await self.interrupt(str(error))
            with suppress(SupervisorLost):
                await _discard(self._job.sent)

    async def _give_up(self, nursery: trio.Nursery) -> None:
        """The last resort against a command that an interrupt does not end. One that waits for its master is none."""
        await trio.sleep(self._stop_s)
        journal = self._job.sent.journal
        while journal.ended or journal.begin < journal.end:  # noqa: ASYNC110 - a last resort may look now and then
            await trio.sleep(STOP_S)
        logger.error("%s: has not ended within %g s of its interrupt, and is given up", self.title, self._stop_s)
        nursery.cancel_scope.cancel()


@final
class PlainJob:
    """A command without children. An interrupt cancels it."""

    def __init__(
        self, command: Command[MemoryOutput], out: MemoryOutput, interrupted_rc: int, note: Path | None = None
    ) -> None:
        """`note`: a file that tells a later process of it, removed when the master has its end."""
        self.sent: Sent = out
        self._command = command
        self._out = out
        self._note = note
        self._interrupted_rc = interrupted_rc
        self._reason = "interrupted"
        self._scope = trio.CancelScope()

    async def work(self) -> None:
        started = trio.current_time()
        outcome: Outcome | None = None
        with self._scope:
            outcome = await _outcome(self._command, self._out)
        if outcome is None:
            outcome = Outcome(rc=self._interrupted_rc, reason=self._reason)
        await conclude(self._out, outcome, trio.current_time() - started)

    async def interrupt(self, why: str, *, orphaned: bool = False) -> None:
        self._reason = "orphaned" if orphaned else "interrupted"
        self._scope.cancel(reason=why)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        journal = self._out.journal
        if self._note is not None and journal.ended and journal.begin == journal.end:
            self._note.unlink(missing_ok=True)
        self._out.abandon()

    @property
    def can_detach(self) -> bool:
        return False

    def detach(self) -> None:
        raise AssertionError("a command without a supervisor ends with its process")


@final
class Restarted:
    """A command without children that an earlier process of the worker had not done."""

    async def run(self, out: MemoryOutput, /) -> Outcome:
        del out
        await trio.lowlevel.checkpoint()
        return Outcome(rc=-1, failure=WORKER_RESTARTED)


class _Supervised:
    """What has a supervisor. An interrupt goes there, which ends the child that runs."""

    def __init__(self, out: Supervised, *, returns: bool) -> None:
        """`returns`: its master can come back to it."""
        self.sent: Sent = out
        self._out = out
        self._returns = returns

    async def interrupt(self, why: str, *, orphaned: bool = False) -> None:
        await self._out.interrupt(why, orphaned=orphaned)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self._out.aclose()

    @property
    def can_detach(self) -> bool:
        return self._returns and self._out.ends_itself

    def detach(self) -> None:
        self._out.detach()

    def _note(self, error: SupervisorLost) -> None:
        """Another has taken over, and said so in the journal; unless it lives on for a later process."""
        if not self._out.is_detached:
            logger.error("%s", error)


@final
class SupervisedJob(_Supervised):
    """A command with children."""

    def __init__(self, command: Command[Supervised], out: Supervised, *, returns: bool = False) -> None:
        super().__init__(out, returns=returns)
        self._command = command

    async def work(self) -> None:
        started = trio.current_time()
        try:
            outcome = await _outcome(self._command, self._out)
            if outcome is not None:
                await conclude(self._out, outcome, trio.current_time() - started)
        except SupervisorLost as error:
            self._note(error)


@final
class LeftJob(_Supervised):
    """A command that an earlier process of the worker has left.

    What it had yet to do beyond its child was known to that process only.
    """

    def __init__(self, out: Supervised, started: float) -> None:
        """`started`: Unix time."""
        super().__init__(out, returns=True)
        self._started = started

    async def work(self) -> None:
        try:
            if not await self._out.rejoin():
                elapsed_s = max(0.0, time.time() - self._started)
                await conclude(self._out, Outcome(rc=-1, failure=WORKER_RESTARTED), elapsed_s)
        except SupervisorLost as error:
            self._note(error)


async def _outcome(command: Command[OutputT], out: OutputT) -> Outcome | None:
    """Runs a command; whatever it raises becomes an outcome. A worker outlives the faults of its commands."""
    try:
        return await command.run(out)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        await out.append("header", f"{where}{error_text(error)}\n".encode(errors="replace"))
        return Outcome(rc=error_rc(error))
    except TailraceError as error:
        return Outcome(rc=-1, failure=(type(error).__name__, str(error)))
    except Exception as error:
        logger.exception("a command failed by a fault of its own")
        return Outcome(rc=-1, failure=(type(error).__name__, str(error)))


async def _discard(source: Sent) -> None:
    """Reads a journal to its end for nobody, so that its writer need not wait."""
    while not source.journal.ended:
        end = source.journal.end
        source.released(end)
        await source.wait_grown(end)
