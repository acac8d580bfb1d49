"""`tailrace worker serve`. A worker may be a small machine: only trio, attrs and `_core` are loaded for it."""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, final

import trio

from tailrace.worker.daemon import serve_worker

from .failure import USAGE, Failure, explain
from .streams import announce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailrace.worker.daemon import WorkerState

_LOG_BYTES = 10_000_000
_LOGS_KEPT = 5
_LOG_FORM = "%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s"


async def serve(directory: Path, /, *, drain_timeout: float = 60.0, drain: bool = False) -> int:
    """Serve as a worker until SIGTERM, Ctrl-C, or the master sends it home.

    As in: `tailrace worker serve w`. Prints `attached URL`; reconnects for ever; writes DIR/worker.log.

    SIGTERM and Ctrl-C: takes nothing new and ends at once. What runs goes on, and the next worker in this directory
    goes on with it; so in a systemd unit write KillMode=process. Only what needs this process (transfers, several
    children in a row, all commands of a Buildbot master) is waited for a while and then interrupted; a second signal
    interrupts it at once. SIGHUP: takes nothing new, and ends when nothing runs. A worker that is killed loses nothing
    but what needs it.

    Parameters
    ----------
    directory
        The worker's directory.
    drain_timeout
        Seconds that commands which need this process get after SIGTERM.
    drain
        Do not serve, but tell the worker that serves there to finish what runs, take nothing new, and end.
    """
    if drain:
        return tell_to_drain(directory)
    if not 0 <= drain_timeout < 1e9:
        raise Failure(
            f"--drain-timeout {drain_timeout:g}: seconds, none or more", "as in: --drain-timeout 60", code=USAGE
        )
    if not (directory / "tailrace.toml").exists():
        raise Failure(f"{directory} is not a worker's directory", "`tailrace worker create` makes one")
    _log_into(directory)
    await serve_worker(directory, drain_timeout=drain_timeout, announce=Announcer().announce)
    return 0


def main(arguments: Sequence[str]) -> int:
    """`worker serve` without the machinery of the other commands; the same errors and exit codes."""
    parser = _Parser(prog="tailrace worker serve", add_help=False, allow_abbrev=False)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--drain-timeout", type=float, default=60.0)
    parser.add_argument("--drain", action="store_true")
    try:
        told = parser.parse_args(arguments)
        return trio.run(lambda: serve(told.directory, drain_timeout=told.drain_timeout, drain=told.drain))
    except BaseException as error:
        return explain(error)


def tell_to_drain(directory: Path) -> int:
    """SIGHUP to the worker that serves in `directory`, if its lock says that there is one."""
    from tailrace.worker.identity import LOCK

    try:
        with (directory / LOCK).open("rb") as file:
            if _is_free(file.fileno()):
                raise Failure(f"no worker serves {directory}", "there is nothing to drain")
            holder = int(file.read(32))
    except FileNotFoundError as error:
        raise Failure(f"no worker serves {directory}", "there is nothing to drain") from error
    os.kill(holder, signal.SIGHUP)
    print(f"draining process {holder}", flush=True)
    return 0


@final
class Announcer:
    """Says on standard output what happens to the connection; what does not change is said once."""

    def __init__(self) -> None:
        self._said = ""

    def announce(self, state: WorkerState) -> None:
        match state.state:
            case "attached":
                self._say(f"attached {state.endpoint}")
            case "waiting":
                word = "refused" if state.reason.startswith("login refused") else "waiting"
                self._say(f"{word} {state.endpoint}: {state.reason}")
            case "draining" | "stopped":
                self._say(str(state))
            case "connecting":
                pass

    def _say(self, line: str) -> None:
        if line != self._said:
            logging.getLogger("tailrace.worker").info("%s", line)
            announce(line)
        self._said = line


@final
class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(message, "see: tailrace worker serve --help", code=USAGE)


def _log_into(directory: Path) -> None:
    """All loggers write to worker.log, which is kept below some size."""
    handler = logging.handlers.RotatingFileHandler(
        directory / "worker.log", maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter(_LOG_FORM, "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _is_free(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
