"""`shell`: runs one child and streams what it writes."""

from __future__ import annotations

import os
import shlex
import signal
from typing import TYPE_CHECKING, cast, final

from tailrace.worker.supervisor import Child, LogFile

from .child import Shown, announcement
from .environment import child_environment, environment_changes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tailrace.worker.supervisor import Supervised

    from .command import Arguments, Context, Outcome

LOG_NAME_BYTES_MAX = 255
"""The longest name of a watched log; PROTOCOL.md section 6."""

LOGS_MAX = 1000
"""How many logs are watched; PROTOCOL.md section 6 has room for few more, and a file is held open for each."""


@final
class Shell:
    """Runs `command` in `workdir`.

    Arguments: `command` (a string for `/bin/sh -c`, or a list whose items may be `("obfuscated", real, shown)`),
    `workdir` ("."), `env`, `want_stdout`, `want_stderr`, `timeout` (seconds without output), `maxTime` (seconds
    in all), `max_lines`, `sigtermTime` (seconds between TERM and `interruptSignal`), `interruptSignal` ("KILL"),
    `initial_stdin`, `usePTY`, `logfiles` (name → path, or → `{filename, follow}`), `logEnviron` (here False:
    environments hold secrets).
    """

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        argv, shown_argv, line = _command_line(arguments)
        workdir = context.path(arguments.text("workdir", "."))
        stdin = arguments.data("initial_stdin")
        wants_pty = arguments.strict_flag("usePTY", False)
        self._pty_refused = wants_pty and stdin is not None
        self._shown = Shown(line=line, argv=shown_argv, environment=arguments.flag("logEnviron", False))
        self._child = Child(
            argv=argv,
            cwd=str(workdir),
            env=child_environment(context.environ, environment_changes(arguments), workdir),
            pty=wants_pty and stdin is None,
            stdin=stdin,
            want_stdout=arguments.flag("want_stdout", True),
            want_stderr=arguments.flag("want_stderr", True),
            # As in Buildbot, 0 seconds stand for no limit.
            timeout_s=arguments.seconds("timeout") or None,
            max_time_s=arguments.seconds("maxTime") or None,
            max_lines=arguments.count("max_lines"),
            term_s=arguments.seconds("sigtermTime"),
            signal=_signal_name(arguments),
            logfiles=_watched(arguments, workdir),
            final=True,
        )

    async def run(self, out: Supervised, /) -> Outcome | None:
        """Runs the child to its end, which the supervisor writes. Cancelling it leaves the child running."""
        header = announcement(self._child, self._shown)
        if self._pty_refused:
            header += " usePTY is ignored: initial_stdin needs a pipe\n"
        await out.spawn(self._child, header.encode(errors="replace"))
        return None


def _command_line(arguments: Arguments) -> tuple[list[bytes | str], tuple[str, ...], str]:
    """The real argument vector, the one that may be shown, and the latter as one would type it."""
    command = arguments.raw("command")
    if isinstance(command, str) and "\0" not in command:
        return ["/bin/sh", "-c", command], ("/bin/sh", "-c", command), command
    if not isinstance(command, list | tuple) or not command:
        raise arguments.wrong("command", "a string or a list of strings, without NUL")
    items = [_item(arguments, item) for item in command]
    shown = tuple(item[1] for item in items)
    return [item[0] for item in items], shown, shlex.join(shown)


def _item(arguments: Arguments, item: object) -> tuple[str, str]:
    """One argument as (real, shown). A wire may turn the tuple of a hidden one into a list."""
    if isinstance(item, list | tuple):
        parts = cast("Sequence[object]", item)
        if len(parts) != 3 or parts[0] != "obfuscated":
            raise arguments.wrong("command", 'made of strings and ("obfuscated", real, shown)')
        real, shown = parts[1], parts[2]
    else:
        real = shown = item
    if isinstance(shown, bytes):  # a command line may hold any bytes
        shown = shown.decode(errors="replace")
    if isinstance(real, bytes):
        real = os.fsdecode(real)
    if not isinstance(real, str) or not isinstance(shown, str) or "\0" in real:
        raise arguments.wrong("command", 'made of strings without NUL and ("obfuscated", real, shown)')
    return real, shown


def _signal_name(arguments: Arguments) -> str:
    name = arguments.text("interruptSignal", "KILL").removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__:
        raise arguments.wrong("interruptSignal", f"the name of a signal, which {name!r} is not")
    return name


def _watched(arguments: Arguments, workdir: Path) -> tuple[LogFile, ...]:
    wanted = arguments.mapping("logfiles")
    if len(wanted) > LOGS_MAX:
        raise arguments.wrong("logfiles", f"a mapping of at most {LOGS_MAX} names")
    return tuple(_log_file(arguments, name, value, workdir) for name, value in wanted.items())


def _log_file(arguments: Arguments, name: str, value: object, workdir: Path) -> LogFile:
    follow: object = False
    if isinstance(value, dict):
        options = cast("dict[str, object]", value)
        value, follow = options.get("filename"), options.get("follow", False)
    if not isinstance(value, str) or not isinstance(follow, bool | int):
        raise arguments.wrong(
            "logfiles", f"a mapping from names to paths or {{filename, follow}}, which {name!r} is not"
        )
    if not 0 < len(name.encode(errors="replace")) <= LOG_NAME_BYTES_MAX:
        raise arguments.wrong("logfiles", f"a mapping from names of 1 to {LOG_NAME_BYTES_MAX} bytes")
    return LogFile(name=name, path=str(workdir / value), follow=bool(follow))
