"""What the source commands have in common: when a tree is brought up to date, when made anew, and what comes after.

A tree is known by a file beside it, in the builder's directory, that says what was checked out there. If that still
fits, and the tree stands, it is brought up to date; if not, or if that fails, it is made anew; if that fails too, it is
tried again as often as `retry` says. What a version control system does for it is a `Tree` (`git.py`, `repo.py`).
"""

from __future__ import annotations

import base64
import shlex
from typing import TYPE_CHECKING, Literal, Protocol, final

import attrs
import trio

from tailrace.link.endpoint import without_secrets
from tailrace.worker.supervisor import Child

from .child import Shown, announcement, make_directory
from .command import Outcome
from .environment import child_environment, environment_changes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tailrace._core import Value
    from tailrace.worker.supervisor import Exit, Supervised

    from .command import Arguments, Context
    from .environment import Changes

Mode = Literal["update", "copy", "clobber", "export"]

MODES: tuple[Mode, ...] = ("update", "copy", "clobber", "export")

TIMEOUT_S = 120.0
"""Buildbot's default for how long a source command's child may be silent."""

NO_PROGRAM = 127


class Tree(Protocol):
    """What a version control system can do."""

    @property
    def identity(self) -> str:
        """What a tree holds, but for its revision: one with another identity is made anew."""

    @property
    def metadata(self) -> str:
        """The entry in a tree by which one knows that it stands; what an export leaves out."""

    async def make(self, steps: Steps, directory: Path) -> None:
        """Makes the tree in `directory`, which does not exist, in a directory that does."""

    async def update(self, steps: Steps, directory: Path) -> None:
        """Brings the tree up to date, whatever was done to it."""

    async def results(self, steps: Steps, directory: Path) -> Mapping[str, Value]:
        """The updates that tell what was checked out."""


@final
@attrs.frozen(kw_only=True)
class Patch:
    """A change that is applied to the tree.

    Attributes:
        level: How many leading directories of its paths are left out.
        diff: The change.
        root: The directory in the tree in which it is applied.
    """

    level: int
    diff: bytes
    root: str


@final
class Source:
    """A source command.

    Arguments: `workdir`, `mode` (`update`, or `copy`: checked out into `source/` and copied; `clobber`: made anew;
    `export`: made anew, without what belongs to the version control system), `patch` (levels, diff[, directory]),
    `timeout` (120 s without output), `maxTime` (of each child), `retry` (seconds between, how often), `env`,
    `logEnviron`.
    """

    def __init__(self, context: Context, tree: Tree) -> None:
        arguments = context.arguments
        self._context = context
        self._tree = tree
        self._mode = _mode(arguments)
        self._patch = _patch(arguments)
        self._retry = _retry(arguments)
        self._workdir = context.path(arguments.text("workdir"))
        if self._workdir == context.builder_dir:
            raise arguments.wrong("workdir", "below the builder's directory: it will be removed")
        self._directory = context.path("source") if self._mode == "copy" else self._workdir
        self._settings = Settings(
            changes=environment_changes(arguments),
            timeout_s=arguments.seconds("timeout", TIMEOUT_S) or None,
            max_time_s=arguments.seconds("maxTime") or None,
            log_environ=arguments.flag("logEnviron", False),
        )

    async def run(self, out: Supervised, /) -> Outcome:
        """Checks out and reports. Cancelling it leaves the child that runs running."""
        steps = Steps(self._context, self._settings, out)
        try:
            await make_directory(self._workdir.parent)
            await self._obtain(steps)
            if self._mode == "copy":
                await steps.remove(self._workdir)
                await steps.run("cp", "-R", "-P", "-p", "--", str(self._directory), str(self._workdir))
            await out.update(await self._tree.results(steps, self._workdir))
            if self._patch is not None:
                await self._apply(steps, self._patch)
            if self._mode == "export":
                await steps.remove(self._workdir / self._tree.metadata)
        except Failed as failed:
            return failed.outcome
        return Outcome(rc=0)

    async def _obtain(self, steps: Steps) -> None:
        delay_s, repeats = self._retry
        while True:
            try:
                return await self._obtain_once(steps)
            except Failed as failed:
                if failed.final or repeats == 0:
                    raise
            repeats -= 1
            await steps.note(f"the checkout failed, trying again in {delay_s:g} seconds ({repeats} more after that)")
            # A child, and not a sleep here, so that an interrupt ends it.
            await steps.run("sleep", f"{delay_s:f}")

    async def _obtain_once(self, steps: Steps) -> None:
        if self._mode in ("update", "copy") and await trio.to_thread.run_sync(self._is_known):
            try:
                return await self._tree.update(steps, self._directory)
            except Failed as failed:
                if failed.final:
                    raise
            await steps.note("the tree cannot be brought up to date and is made anew")
        await trio.to_thread.run_sync(lambda: self._note.unlink(missing_ok=True))
        await steps.remove(self._directory)
        await self._tree.make(steps, self._directory)
        if self._mode != "export":
            await trio.to_thread.run_sync(self._note.write_text, self._tree.identity)

    async def _apply(self, steps: Steps, patch: Patch) -> None:
        directory = self._workdir / patch.root
        await steps.run("patch", f"-p{patch.level}", "--force", "--forward", cwd=directory, stdin=patch.diff)

    @property
    def _note(self) -> Path:
        """What says what the tree is."""
        name = base64.urlsafe_b64encode(str(self._directory).encode(errors="surrogateescape")).decode()
        return self._context.path(f".source-{name[-200:]}")

    def _is_known(self) -> bool:
        try:
            noted = self._note.read_text()
        except OSError:
            return False
        return noted == self._tree.identity and (self._directory / self._tree.metadata).exists()


class Failed(Exception):
    """A step has failed."""

    def __init__(self, exit_: Exit) -> None:
        self.exit = exit_

    @property
    def final(self) -> bool:
        """Nothing should be tried any more."""
        return self.exit.reason == "interrupted" or self.exit.rc == NO_PROGRAM

    @property
    def outcome(self) -> Outcome:
        # Buildbot's word for a version control system that is not installed.
        rc = -1 if self.exit.rc == NO_PROGRAM else self.exit.rc
        return Outcome(rc=rc, signal=self.exit.signal, reason=self.exit.reason)


@final
@attrs.frozen(kw_only=True)
class Settings:
    """How all children of a source command run."""

    changes: Changes
    timeout_s: float | None
    max_time_s: float | None
    log_environ: bool


@final
class Steps:
    """Runs the children of a source command, each announced on `header`. The first that fails ends it: `Failed`."""

    def __init__(self, context: Context, settings: Settings, out: Supervised) -> None:
        self._context = context
        self._settings = settings
        self._out = out

    async def run(
        self, *argv: str, cwd: Path | None = None, stdin: bytes | None = None, capture: bool = False
    ) -> bytes:
        """Runs one; gives its stdout if that was to be captured."""
        ended = await self._spawn(argv, cwd or self._context.builder_dir, stdin, capture)
        if ended.rc != 0 or ended.reason is not None:
            raise Failed(ended)
        return ended.captured

    async def ask(self, *argv: str, cwd: Path) -> str | None:
        """What one says on stdout, without the last line end; None if it fails, which is no failure here."""
        ended = await self._spawn(argv, cwd, None, capture=True)
        if ended.reason is not None or ended.rc == NO_PROGRAM:
            raise Failed(ended)
        return ended.captured.decode(errors="replace").rstrip("\n") if ended.rc == 0 else None

    async def remove(self, path: Path) -> None:
        """Removes whatever stands there."""
        try:
            await self.run("rm", "-rf", "--", str(path))
        except Failed as failed:
            if failed.final:
                raise
            await self.run("chmod", "-Rf", "u+rwx", "--", str(path))
            await self.run("rm", "-rf", "--", str(path))

    async def note(self, text: str) -> None:
        """Says something on `header`."""
        await self._out.append("header", f"{text}\n".encode(errors="replace"))

    async def _spawn(self, argv: tuple[str, ...], cwd: Path, stdin: bytes | None, capture: bool) -> Exit:
        environment = child_environment(self._context.environ, self._settings.changes, cwd)
        child = Child(
            argv=list(argv),
            cwd=str(cwd),
            # Nobody is there to answer.
            env={"GIT_TERMINAL_PROMPT": "0", **environment},
            stdin=stdin,
            timeout_s=self._settings.timeout_s,
            max_time_s=self._settings.max_time_s,
            capture=capture,
        )
        seen = tuple(map(without_secrets, argv))
        shown = Shown(line=shlex.join(seen), argv=seen, environment=self._settings.log_environ)
        await self.note(announcement(child, shown).rstrip("\n"))
        return await self._out.spawn(child)


def plain_text(arguments: Arguments, name: str, default: str | None = None) -> str:
    """A text that no program can take for an option."""
    text = arguments.text(name, default)
    if not text or text.startswith("-") or "\0" in text:
        raise arguments.wrong(name, "a text that is not empty and does not begin with '-'")
    return text


def optional_plain_text(arguments: Arguments, name: str) -> str | None:
    """The same, or None when it is not there or empty."""
    return plain_text(arguments, name) if arguments.optional_text(name) else None


def _mode(arguments: Arguments) -> Mode:
    mode = arguments.text("mode", "update")
    if mode not in MODES:
        raise arguments.wrong("mode", f"one of {', '.join(MODES)}")
    return mode


def _patch(arguments: Arguments) -> Patch | None:
    if "patch" not in arguments:
        return None
    match arguments.raw("patch"):
        case [int(level), str() | bytes() as diff, *rest]:
            match rest:
                case [] | [None]:
                    root = "."
                case [str(root)]:
                    pass
                case _:
                    raise arguments.wrong("patch", "(levels, diff, directory)")
            data = diff.encode(errors="surrogateescape") if isinstance(diff, str) else diff
            return Patch(level=level, diff=data, root=root)
        case _:
            raise arguments.wrong("patch", "(levels, diff) or (levels, diff, directory)")


def _retry(arguments: Arguments) -> tuple[float, int]:
    if "retry" not in arguments:
        return 0.0, 0
    match arguments.raw("retry"):
        case [int() | float() as delay_s, int(repeats)] if delay_s >= 0 and repeats >= 0:
            return float(delay_s), repeats
        case _:
            raise arguments.wrong("retry", "(seconds, how often)")
