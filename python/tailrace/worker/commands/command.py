"""What every command is made of: its context, its checked arguments, and how it ends.

A command is a class with two methods. The constructor takes a `Context` and checks all arguments: what it raises
refuses the start of the command. `run` does the work, reports into an `Output` while it goes, and returns an `Outcome`;
who runs it (`worker/worker.py`) then writes the end of the journal: the reason, the signal, `rc`, `elapsed`, the
completion.

There are two kinds. Commands with children run on a `Supervised` (`worker/supervisor.py`): an interrupt goes to the
child, `spawn` returns, and `run` goes on to its end. All others run on a `MemoryOutput` (`worker/journal.py`): an
interrupt cancels `run`, which must have cleaned up after itself and must not need longer than a moment for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar, cast, final

import attrs

from tailrace.errors import RemoteError

if TYPE_CHECKING:
    from pathlib import Path

    from tailrace._core import Journal, Value

VERSION = "3.3"
"""What every command reports. Buildbot's masters compare it as numbers to know which arguments are understood."""


@final
@attrs.frozen(kw_only=True)
class Context:
    """What a command is given.

    Attributes:
        command: The command's id.
        name: The command's name, as the master wrote it.
        basedir: The worker's directory.
        builder_dir: The builder's directory; relative paths in arguments begin here.
        args: The arguments as they came, with Proxies where the master gave Impls.
        environ: The worker's own environment.
    """

    command: str
    name: str
    basedir: Path
    builder_dir: Path
    args: Mapping[str, object]
    environ: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ))

    @property
    def arguments(self) -> Arguments:
        """The arguments, to be read with checks."""
        return Arguments(self.name, self.args)

    def path(self, *parts: str) -> Path:
        """Joins parts to the builder's directory. An absolute part replaces what is before it, as in `os.path.join`.

        Raises `RemoteError` for what can be no path.
        """
        if any("\0" in part for part in parts):
            raise RemoteError("WrongArgument", f"{self.name}: a path holds a NUL")
        return self.builder_dir.joinpath(*parts)


class Output(Protocol):
    """Where a command reports: the writing end of its journal. `Supervised` and `MemoryOutput` are its two kinds."""

    @property
    def journal(self) -> Journal: ...
    async def append(self, channel: str, data: bytes) -> None:
        """Adds bytes to `stdout`, `stderr`, `header`. Waits while the journal is full; cancelled, nothing was added."""

    async def update(self, values: Mapping[str, Value]) -> None:
        """Adds structured updates (`rc`, `stat`, `files`, …)."""

    async def finish(self, failure: tuple[str, str] | None = None) -> None:
        """Ends the journal."""


OutputT_contra = TypeVar("OutputT_contra", bound=Output, contravariant=True)


class Command(Protocol[OutputT_contra]):
    """One command, made from a `Context`; see the module's docstring."""

    async def run(self, out: OutputT_contra, /) -> Outcome | None:
        """Does the work. `None`: the end of the journal is written by someone else (a supervisor with a final child).

        An `OSError` that it raises becomes `rc` = errno and one line on `header`. A `RemoteError` (or a bug) becomes
        the failure of the completion.
        """


@final
@attrs.frozen(kw_only=True)
class Outcome:
    """How a command ended.

    Attributes:
        rc: Its result; 0 is success.
        signal: The name of the signal that ended it (`SIGTERM`), if one did.
        reason: A `failure_reason`: `timeout`, `timeout_without_output`, `max_lines_failure`, `interrupted`, `orphaned`.
        failure: (type, text) when the command could not do its work at all and `rc` says too little.
    """

    rc: int
    signal: str | None = None
    reason: str | None = None
    failure: tuple[str, str] | None = None


async def conclude(out: Output, outcome: Outcome, elapsed_s: float) -> None:
    """Writes the end of a journal in its order (PROTOCOL.md section 6): `rc`, `elapsed`, completion."""
    if outcome.reason is not None:
        await out.update({"failure_reason": outcome.reason})
    if outcome.signal is not None:
        await out.update({"signal": outcome.signal})
    await out.update({"rc": outcome.rc})
    await out.update({"elapsed": elapsed_s})
    await out.finish(outcome.failure)


@final
class Arguments:
    """A command's arguments, read one by one with checks.

    Every method takes the argument's name and what stands in for it when it is missing or None; without a stand-in the
    argument is required. What does not fit raises a `RemoteError` that names the command, the argument and what was
    expected: raised in a command's constructor, it refuses the start. Unknown arguments are ignored, as Buildbot's
    masters send some that no worker reads.
    """

    def __init__(self, command: str, values: Mapping[str, object]) -> None:
        self._command = command
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def either(self, *names: str) -> str:
        """The first of several spellings (`workersrc`, `slavesrc`) that is there, or else the first."""
        return next((name for name in names if name in self), names[0])

    def raw(self, name: str) -> object:
        """A required argument of any type."""
        value = self._values.get(name)
        if value is None:
            raise RemoteError("MissingArgument", f"{self._command}: the argument {name!r} is missing")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._get(name, default)
        return value if isinstance(value, str) else self._wrong(name, "a string", value)

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if name in self else None

    def data(self, name: str) -> bytes | None:
        """Bytes, or a string as UTF-8; None when it is not there."""
        if name not in self:
            return None
        value = self.raw(name)
        if isinstance(value, str):
            return value.encode(errors="surrogateescape")
        return (
            bytes(value) if isinstance(value, bytes | bytearray | memoryview) else self._wrong(name, "a string", value)
        )

    def flag(self, name: str, default: bool) -> bool:
        """A bool, or a number that stands for one: old masters send 0 and 1."""
        value = self._get(name, default)
        return bool(value) if isinstance(value, int | float) else self._wrong(name, "true or false", value)

    def strict_flag(self, name: str, default: bool) -> bool:
        """Exactly a bool."""
        value = self._get(name, default)
        return value if isinstance(value, bool) else self._wrong(name, "exactly true or false", value)

    def seconds(self, name: str, default: float | None = None) -> float | None:
        """A number of seconds, not negative; None: no limit."""
        value = self._values.get(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            self._wrong(name, "a number of seconds", value)
        return float(value)

    def count(self, name: str, default: int | None = None) -> int | None:
        """A whole number, not negative; None: no limit."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._wrong(name, "a whole number", value)
        return value

    def texts(self, name: str) -> list[str]:
        """One string or a list of them; required."""
        value = self.raw(name)
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            self._wrong(name, "a string or a list of strings", value)
        return cast(list[str], list(value))

    def mapping(self, name: str) -> Mapping[str, object]:
        """A mapping with string keys; empty when it is not there."""
        value = self._get(name, {})
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            self._wrong(name, "a mapping", value)
        return cast(Mapping[str, object], value)

    def wrong(self, name: str, expected: str) -> RemoteError:
        """The error for an argument whose value does not do; for checks that are made elsewhere."""
        return RemoteError("WrongArgument", f"{self._command}: the argument {name!r} must be {expected}")

    def _get(self, name: str, default: object) -> object:
        if default is None:
            return self.raw(name)
        value = self._values.get(name)
        return default if value is None else value

    def _wrong(self, name: str, expected: str, value: object) -> NoReturn:
        raise RemoteError(
            "WrongArgument",
            f"{self._command}: the argument {name!r} must be {expected}, not {type(value).__name__}{_shown(value)}",
        )


def _shown(value: object) -> str:
    """The value, short enough for one line; nothing of what has parts, as one of them may be a secret."""
    return f" {value!r}"[:60] if isinstance(value, str | int | float) else ""
