"""How a run ended: as an exit code for scripts, and as words for people."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from .failure import OURS, SIGNALLED, TIMED_OUT, UNKNOWN_SIGNAL

if TYPE_CHECKING:
    from .api import RunInfo

_TIMEOUTS = {
    "timeout_without_output": "it was silent for too long",
    "timeout": "it took too long",
}


def exit_code(run: RunInfo) -> int:
    """What `tailrace run` exits with: the command's own code where there is one."""
    if run.state == "lost" or run.failure is not None:
        return OURS
    if run.reason in _TIMEOUTS:
        return TIMED_OUT
    if run.rc is None:
        return OURS
    if run.rc == -1 or run.signal:
        return SIGNALLED + number if (number := _number(run.signal)) else UNKNOWN_SIGNAL
    return run.rc & 0xFF


def trouble(run: RunInfo) -> str | None:
    """What there is to say on standard error about an end that the command did not choose; None for any other."""
    if run.state == "lost":
        return (
            f"run {run.id} was lost: {run.failure or f'{run.worker} went away'}; `tailrace logs {run.id}` has what came"
        )
    if run.failure is not None:
        return f"run {run.id} failed on {run.worker}: {run.failure}"
    if run.reason in _TIMEOUTS:
        return f"run {run.id} timed out after {seconds(run.elapsed)}: {_TIMEOUTS[run.reason]}"
    if run.reason == "interrupted":
        return f"run {run.id} was interrupted after {seconds(run.elapsed)}{_by(run)}"
    if run.reason is not None:
        return f"run {run.id} was ended after {seconds(run.elapsed)}: {run.reason.replace('_', ' ')}"
    return None


def outcome(run: RunInfo) -> str:
    """A word or two for a table."""
    if not run.ended:
        return "suspended" if run.row.get("suspended") is True else run.state
    if run.state == "lost" or run.failure is not None:
        return "lost" if run.state == "lost" else "failed"
    if run.reason is not None:
        return run.reason.replace("_", " ")
    if run.signal:
        return run.signal
    return "ok" if run.rc == 0 else f"exit {run.rc}"


def seconds(value: float | None) -> str:
    if value is None:
        return "?"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def size(count: float | None) -> str:
    """Bytes for people; exact below 10,000."""
    if count is None:
        return "?"
    if count < 10_000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def _by(run: RunInfo) -> str:
    return f" (by {run.signal})" if run.signal else ""


def _number(name: str | None) -> int | None:
    if not name:
        return None
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        return None
