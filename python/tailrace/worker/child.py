"""A child: what runs, within what limits, and how it ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace._core import Value


@final
@attrs.frozen
class LogFile:
    """A file whose contents become the log `name`.

    `follow`: from the size that it has when the child starts; else all of it, once it has changed or appeared.
    `path` is relative to the child's directory.
    """

    name: str
    path: str
    follow: bool = False


@final
@attrs.frozen(kw_only=True)
class Child:
    """One child to run.

    Attributes:
        argv: Program and arguments. Without a slash, the program is looked for in the PATH of `env`.
        cwd: Its directory, absolute; made if it is missing.
        env: All of its environment.
        pty: Give it a terminal; then all output is stdout.
        stdin: What it reads, before the end of file; None: /dev/null.
        want_stdout: False: not in the journal, though a sign of life.
        want_stderr: Likewise.
        timeout_s: It is stopped after so long without any output.
        max_time_s: It is stopped after so long.
        max_lines: It is stopped when it writes more lines, stdout and stderr together. The rest becomes a gap.
        term_s: To stop it: first TERM, and so much time.
        signal: Then this, by its name without SIG.
        kill_grace_s: And KILL, so long after it.
        logfiles: Watched files.
        capture: Its stdout, up to 64 KiB, comes back in `Exit.captured` and is not in the journal.
        final: Its end is the command's: the supervisor itself then ends the journal.
    """

    argv: list[bytes | str]
    cwd: str
    env: Mapping[str, str]
    pty: bool = False
    stdin: bytes | None = None
    want_stdout: bool = True
    want_stderr: bool = True
    timeout_s: float | None = None
    max_time_s: float | None = None
    max_lines: int | None = None
    term_s: float | None = None
    signal: str = "KILL"
    kill_grace_s: float = 5.0
    logfiles: tuple[LogFile, ...] = ()
    capture: bool = False
    final: bool = False


@final
@attrs.frozen(kw_only=True)
class Exit:
    """How a child ended.

    Attributes:
        rc: Its exit code; -1 when a signal ended it, or when it was stopped and still said 0; 127: there is no such
            program, 126: it cannot be run (then stderr says so in one line).
        signal: The signal that ended it, `SIGTERM`.
        reason: Why it was stopped, if it was: `timeout_without_output`, `timeout`, `max_lines_failure`, `interrupted`.
        elapsed: Seconds.
        captured: See `Child.capture`.
    """

    rc: int
    signal: str | None = None
    reason: str | None = None
    elapsed: float = 0.0
    captured: bytes = b""


def spawn_fields(child: Child) -> Mapping[str, Value]:
    """What a supervisor is asked, as `rust/supervisor/src/request.rs` reads it."""
    return {
        "argv": [os.fsencode(item) for item in child.argv],
        "cwd": os.fsencode(child.cwd),
        "env": [(os.fsencode(name), os.fsencode(value)) for name, value in child.env.items()],
        "pty": child.pty,
        "stdin": child.stdin,
        "want_stdout": child.want_stdout,
        "want_stderr": child.want_stderr,
        "timeout_s": child.timeout_s,
        "max_time_s": child.max_time_s,
        "max_lines": child.max_lines,
        "term_s": child.term_s,
        "signal": child.signal,
        "kill_grace_s": child.kill_grace_s,
        "logfiles": [(log.name, os.fsencode(log.path), log.follow) for log in child.logfiles],
        "capture": child.capture,
        "final": child.final,
    }


def exit_of(answer: Mapping[str, Value]) -> Exit:
    """What it answers in the end."""
    return Exit(
        rc=cast(int, answer["rc"]),
        signal=cast("str | None", answer["signal"]),
        reason=cast("str | None", answer["reason"]),
        elapsed=cast(float, answer["elapsed"]),
        captured=cast(bytes, answer["captured"]),
    )
