"""How a run ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from tailrace._core import Receipt


@attrs.frozen(kw_only=True)
class RunResult:
    """How a run ended. A non-zero `rc` is a result like any other."""

    state: Literal["complete", "lost"]  # lost: the connection went first, and nobody knows
    rc: int | None = None  # -1: a signal, see `signal`. None: the command did not get so far
    signal: str | None = None  # SIGTERM, SIGKILL, …
    reason: str | None = None  # timeout_without_output, timeout, max_lines_failure, interrupted, orphaned
    elapsed: float | None = None  # seconds
    failure: tuple[str, str] | None = None  # the command did not do its work: error type, one line
    damaged: bool = False  # what the worker says that it sent is not what arrived
    receipt: Receipt | None = None
    stat: tuple[int, ...] | None = None
    files: tuple[str, ...] | None = None
    got_revision: str | None = None
    repo_downloaded: tuple[str, ...] | None = None
