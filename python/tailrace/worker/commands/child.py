"""What the commands that run children have in common: how the child is announced on `header`, and how its end reads."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import attrs
import trio

from .command import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from tailrace.worker.supervisor import Child, Exit

    from .command import Output


@attrs.frozen(kw_only=True)
class Shown:
    """A command line as people may see it.

    Attributes:
        line: As one would type it.
        argv: Item by item.
        environment: Whether the environment may be shown as well.
    """

    line: str
    argv: tuple[str, ...]
    environment: bool = False


def announcement(child: Child, shown: Shown) -> str:
    """What `header` says before a child starts: what runs, where, with what limits, what is watched."""
    limits = [
        f" ({name} {value:g} secs)"
        for name, value in (("timeout", child.timeout_s), ("maxTime", child.max_time_s))
        if value is not None
    ]
    lines = [shown.line, f" in dir {child.cwd}{''.join(limits)}"]
    if child.logfiles:
        watched = ", ".join(f"{log.name}: {log.path}{' (follow)' if log.follow else ''}" for log in child.logfiles)
        lines.append(f" watching logfiles {watched}")
    lines.append(f" argv: {list(shown.argv)!r}")
    if shown.environment:
        lines.append(" environment:")
        lines += [f"  {name}={value}" for name, value in sorted(child.env.items())]
    if child.stdin is not None:
        lines.append(f" writing {len(child.stdin)} bytes to stdin")
    lines.append(f" using PTY: {child.pty}")
    return "".join(f"{line}\n" for line in lines)


async def make_directory(directory: Path) -> None:
    """Makes a directory and its parents, if they are not there. Raises `OSError`."""
    await trio.to_thread.run_sync(lambda: directory.mkdir(parents=True, exist_ok=True), abandon_on_cancel=True)


async def refuse(out: Output, what: str, error: OSError) -> Outcome:
    """The end of a command that could not even start its child: one line on `stderr`, `rc` -1."""
    await out.append("stderr", f"{what}: {error_text(error)}\n".encode(errors="replace"))
    return Outcome(rc=-1)


def error_text(error: OSError) -> str:
    """What went wrong, without number and file name: they stand elsewhere on the line."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def error_rc(error: OSError) -> int:
    """An `OSError` as `rc`: its errno."""
    return error.errno or errno.EIO


def outcome(exit_: Exit) -> Outcome:
    """A child's end as its command's."""
    return Outcome(rc=exit_.rc, signal=exit_.signal, reason=exit_.reason)
