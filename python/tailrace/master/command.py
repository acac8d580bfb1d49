"""Where a command's updates meet the log store: batches go in as they came, nothing is done per record."""

from __future__ import annotations

import contextlib
import logging
import shlex
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from tailrace.errors import ConnectionClosed, ConnectionLost, LocalProtocolError, RemoteError, describe
from tailrace.link import Connection, RemoteCommandImpl
from tailrace.link.endpoint import without_secrets
from tailrace.logs import receipt_table, run_end
from tailrace.master.files import Closes
from tailrace.master.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tailrace._core import Receipt
    from tailrace.logs import RunEnd, RunWriter
    from tailrace.messages import Updates

logger = logging.getLogger("tailrace.master")

_TITLE_CHARS_MAX: Final = 4096
"""A title is for lists on a screen; the arguments themselves may be megabytes."""

_INTERRUPTED_S: Final = 5.0
"""How long the end of a run that was interrupted waits for room on the disk."""

_ERRORS_BYTES_MAX: Final = 4096
"""Of a transfer's stderr: the worker says in one line why it failed."""


@attrs.define
class Outcome:
    """What a command's updates said so far beside its log. Later ones win."""

    values: dict[str, object] = attrs.field(factory=dict)
    receipt: Receipt | None = None
    damaged: bool = False
    parting: str | None = None  # why the connection will be lost, if it is by our doing
    interrupted: bool = False  # the worker was asked to stop it
    goes_on: bool = False  # another process of this master will go on with it

    def note(self, updates: Updates) -> None:
        """Keep what `updates` says; its log is not looked at."""
        self.values.update(updates.batch.updates())
        if updates.receipt is not None:
            self.receipt = updates.receipt
        if updates.receipt_agrees is False:
            self.damaged = True

    def result(self, failure: RemoteError | ConnectionLost | None) -> RunResult:
        """The whole, when the command has ended with `failure` or well."""
        values = self.values
        lost = isinstance(failure, ConnectionLost)
        if lost and self.parting is not None:
            failure = ConnectionLost(self.parting)
        return RunResult(
            state="lost" if lost else "complete",
            rc=_integer(values.get("rc")),
            signal=_text(values.get("signal")),
            reason=_text(values.get("failure_reason")) or self._unsaid_reason(),
            elapsed=_seconds(values.get("elapsed")),
            failure=None if failure is None else describe(failure),
            damaged=self.damaged,
            receipt=self.receipt,
            stat=_integers(values.get("stat")),
            files=_texts(values.get("files")),
            got_revision=_text(values.get("got_revision")),
            repo_downloaded=_texts(values.get("repo_downloaded")),
        )

    def _unsaid_reason(self) -> str | None:
        """Buildbot's worker gives no reason for what it has stopped; but neither does it say how long that took."""
        stopped = self.interrupted and self.values.get("rc") and "elapsed" not in self.values
        return "interrupted" if stopped else None


class AwaitedCommand(RemoteCommandImpl):
    """A command whose end can be waited for, and which can be interrupted. Keeps no log."""

    def __init__(self, command_id: str, worker: str) -> None:
        self.id = command_id
        self.worker = worker
        self.outcome = Outcome()
        self._result: RunResult | None = None
        self._ended = trio.Event()
        self._where: tuple[Connection, str] | None = None
        self._closes: list[Closes] = []
        self._on_end: list[Callable[[], None]] = []

    @property
    def outlives_connection(self) -> bool:
        """Its worker holds it, whatever becomes of the connection."""
        return self._where is not None and self._where[0].may_resume

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended.is_set()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, when it has ended; at once if it has."""
        if self.ended:
            callback()
        else:
            self._on_end.append(callback)

    def starts(self, connection: Connection, builder: str, args: Mapping[str, object]) -> None:
        """It is being started there. What `args` hold open is closed when it has ended."""
        self._where = connection, builder
        self._closes = [value for value in args.values() if isinstance(value, Closes)]

    async def wait(self) -> RunResult:
        """How it ended, when it has."""
        await self._ended.wait()
        assert self._result is not None
        return self._result

    async def interrupt(self, why: str) -> None:
        """Ask its worker to stop it. One that has ended, or whose connection is lost, is left alone."""
        if self.ended or self._where is None:
            await trio.lowlevel.checkpoint()
            return
        connection, builder = self._where
        self.outcome.interrupted = True
        with contextlib.suppress(ConnectionLost, ConnectionClosed):  # the command ends by it
            await connection.remoteInterruptCommand(builder, self.id, why)

    async def remote_update(self, updates: Updates) -> None:
        """Notes what is not log."""
        self.outcome.note(updates)

    async def remote_complete(self, failure: RemoteError | ConnectionLost | None = None) -> None:
        """Called once, by the link; or by who could not start it."""
        if self._result is None:
            self._result = self.outcome.result(failure)
            await self._end()

    async def _end(self) -> None:
        with trio.CancelScope(shield=True):
            for impl in self._closes:
                try:
                    await impl.aclose()
                except OSError as error:
                    logger.warning("command %s: %s", self.id, error)
        self._ended.set()
        for callback in self._on_end:
            callback()


@final
class RunCommand(AwaitedCommand):
    """The command of a run: its log goes into the store, its result into the catalogue.

    Its worker may forget a batch when the store has it safe: see `tailrace.logs.Durability`.
    """

    durable_on_return = False

    def __init__(self, command_id: str, worker: str, writer: RunWriter) -> None:
        super().__init__(command_id, worker)
        self._writer = writer
        writer.on_durable(self._on_durable)

    async def remote_update(self, updates: Updates) -> None:
        """Appends to the log. While the disk is full the command waits, or its log has a gap: see `RunWriter.put`."""
        await self._writer.put(updates.batch)
        self.outcome.note(updates)

    async def interrupt(self, why: str) -> None:
        """The same; and its end is not to wait for a disk that is full."""
        self._writer.hurry(_INTERRUPTED_S)
        await super().interrupt(why)

    async def remote_complete(self, failure: RemoteError | ConnectionLost | None = None) -> None:
        """Seals the log and writes the result down; only then has the run ended for who waits."""
        if self._result is not None:
            return
        self._result = result = self.outcome.result(failure)
        if self.outcome.goes_on and result.state == "lost":
            # Nothing is written down: as after the death of this process, it is running, and its worker holds it.
            await self._end()
            return
        if result.damaged:
            logger.error("run %s is damaged: its receipt differs from what arrived", self.id)
        with trio.CancelScope(shield=True):  # the catalogue must not say `running` of what has ended
            try:
                await self._writer.finish(**self._columns(result))
            finally:
                await self._end()

    def _columns(self, result: RunResult) -> RunEnd:
        """The part of a result that the catalogue keeps."""
        table = None
        writer = self._writer
        if result.receipt is not None:
            agrees = not result.damaged and not writer.left_out
            table = receipt_table(result.receipt, agrees=agrees, durable=writer.durability)
            if writer.left_out:
                table["left_out"] = writer.left_out
            if writer.unsafe_from is not None:
                table["unsafe_from"] = writer.unsafe_from
        values = self.outcome.values | {"failure_reason": result.reason}
        return run_end(values, state=result.state, failure=result.failure, receipt=table)

    def _on_durable(self, offset: int) -> None:
        if self._where is not None:
            # Said a moment too late is no fault: the command may be gone, or all of it given up.
            with contextlib.suppress(LocalProtocolError):
                self._where[0].durable(self.id, offset)


@final
class TransferCommand(AwaitedCommand):
    """A transfer that somebody waits for: keeps the end of what the worker says on stderr, and no log."""

    def __init__(self, command_id: str, worker: str) -> None:
        super().__init__(command_id, worker)
        self._errors = b""

    async def remote_update(self, updates: Updates) -> None:
        """Keeps the tail of stderr and headers."""
        await super().remote_update(updates)
        self._errors = (self._errors + updates.batch.channel_bytes("stderr"))[-_ERRORS_BYTES_MAX:]

    @property
    def errors(self) -> str:
        """The last line that the worker said on stderr, or nothing."""
        lines = self._errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def title(command: str, args: Mapping[str, object]) -> str:
    """What a list of runs shows of a command: a shell's words, quoted as a shell needs them; else names and paths."""
    if command == "shell":
        words = args.get("command")
        text = words if isinstance(words, str) else shlex.join(_shown(word) for word in _sequence(words))
    else:
        names = ("workersrc", "workerdest", "dir", "path", "file", "fromdir", "todir", "repourl", "manifest_url")
        shown = [_shown(item) for name in names if name in args for item in _sequence(args[name])]
        text = " ".join([command, *(shlex.quote(without_secrets(item)) for item in shown)])
    return text if len(text) <= _TITLE_CHARS_MAX else text[: _TITLE_CHARS_MAX - 1] + "…"


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [value]


def _shown(word: object) -> str:
    """One word for people: of an obfuscated one its fake."""
    match word:
        case str():
            return word
        case bytes():
            return word.decode(errors="replace")
        case ("obfuscated", _, fake) | ["obfuscated", _, fake]:
            return str(fake)
        case _:
            return str(word)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integers(value: object) -> tuple[int, ...] | None:
    return tuple(int(item) for item in value) if isinstance(value, list | tuple) else None


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else None
