"""What is known of a run, as a value and as JSON."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Mapping  # noqa: TC003 - attrs and TypedDict look at it
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypedDict, final

import attrs

from tailrace.errors import StoreError

if TYPE_CHECKING:
    from tailrace._core import Receipt
    from tailrace.logs.commit import Durability

RunState: TypeAlias = Literal["running", "complete", "lost"]
"""`lost`: the worker or the master went first, and nobody knows how the command ended."""


@final
@attrs.frozen(kw_only=True)
class RunInfo:
    """A run: what was asked for and, when it has ended, what came of it. Times are Unix seconds."""

    id: str
    worker: str
    builder: str | None
    command: str  # its name: shell, mkdir, …
    title: str  # for people: the command line
    started: float
    state: RunState = "running"
    suspended: bool = False  # running, as far as is known: its worker has not come back since the master began
    ended: float | None = None
    rc: int | None = None
    signal: str | None = None
    reason: str | None = None
    elapsed: float | None = None  # seconds, as the worker has it
    failure: tuple[str, str] | None = None  # error type, one line
    receipt: Mapping[str, object] | None = None
    bytes: int = 0  # of stdout and stderr; 0 while it runs
    lines: int = 0  # begun in them


class RunEnd(TypedDict, total=False):
    """What `RunWriter.finish` is told. See `run_end`."""

    state: RunState
    ended: float
    rc: int | None
    signal: str | None
    reason: str | None
    elapsed: float | None
    failure: tuple[str, str] | None
    receipt: Mapping[str, object] | None


def new_id() -> str:
    """An id for a run: 13 of the characters 0-9 and a-z. Later ones sort behind, within a process always."""
    global _last_ms
    with _ids:
        _last_ms = max(_last_ms + 1, time.time_ns() // 1_000_000)
        now = _last_ms
    return _base32(now, 9) + _base32(secrets.randbits(20), 4)


def check_id(run_id: str) -> str:
    """`run_id`, if it may name a directory.

    Raises:
        StoreError: it may not.
    """
    if _ID.fullmatch(run_id) is None:
        raise StoreError(f"{run_id!r} cannot be the id of a run: letters, digits, `-` and `_`, at most 64")
    return run_id


def with_totals(info: RunInfo, totals: Mapping[str, tuple[int, int]]) -> RunInfo:
    """The run with what its log counts, (bytes, lines) of each channel."""
    (out_bytes, out_lines), (err_bytes, err_lines) = (totals.get(channel, (0, 0)) for channel in ("stdout", "stderr"))
    return attrs.evolve(info, bytes=out_bytes + err_bytes, lines=out_lines + err_lines)


def run_end(
    values: Mapping[str, object],
    *,
    state: RunState,
    failure: tuple[str, str] | None,
    receipt: Mapping[str, object] | None,
) -> RunEnd:
    """How a run ended, by what its updates said (`values`, later ones won) and what stood behind them."""
    return {
        "state": state,
        "rc": _int(values.get("rc")),
        "signal": _str_or_none(values.get("signal")),
        "reason": _str_or_none(values.get("failure_reason")),
        "elapsed": _number(values.get("elapsed")),
        "failure": failure,
        "receipt": receipt,
    }


def receipt_table(receipt: Receipt, *, agrees: bool, durable: Durability) -> dict[str, object]:
    """A receipt as JSON says it; of each channel bytes, lines begun, bytes in gaps, bytes masked.

    `agrees`: it is what was received. `durable`: what the worker was told to be safe, and has forgotten.
    """
    channels = {channel: list(counts) for channel, counts in receipt.channels.items()}
    counted = {"chain": receipt.chain.hex(), "records": receipt.records, "channels": channels}
    return {**counted, "agrees": agrees, "durable": durable}


def left_out(info: RunInfo) -> bool:
    """Whether its log was known to lack something when it ended: see `RunWriter.put`."""
    return info.receipt is not None and ("left_out" in info.receipt or "unsafe_from" in info.receipt)


def to_json(info: RunInfo) -> str:
    """A run as one JSON object."""
    return json.dumps(attrs.asdict(info), ensure_ascii=False, default=str)


def from_json(text: str) -> RunInfo:
    """The opposite of `to_json`. Unknown names are skipped, so that a later version may add some.

    Raises:
        ValueError: it is no run.
    """
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    return RunInfo(
        id=_str(row.get("id")),
        worker=_str(row.get("worker")),
        builder=_str_or_none(row.get("builder")),
        command=_str(row.get("command")),
        title=_str(row.get("title")),
        started=_number(row.get("started")) or 0.0,
        state=_state(row.get("state")),
        suspended=row.get("suspended") is True,
        ended=_number(row.get("ended")),
        rc=_int(row.get("rc")),
        signal=_str_or_none(row.get("signal")),
        reason=_str_or_none(row.get("reason")),
        elapsed=_number(row.get("elapsed")),
        failure=_failure(row.get("failure")),
        receipt=_mapping(row.get("receipt")),
        bytes=_int(row.get("bytes")) or 0,
        lines=_int(row.get("lines")) or 0,
    )


_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # no i, l, o, u: read aloud without a doubt
_ids = threading.Lock()
_last_ms = 0


def _base32(number: int, length: int) -> str:
    return "".join(_DIGITS[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a string is missing: {value!r}")
    return value


def _str_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return value if isinstance(value, float | int) else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _state(value: object) -> RunState:
    match value:
        case "running" | "complete" | "lost":
            return value
        case _:
            raise ValueError(f"no state of a run: {value!r}")


def _failure(value: object) -> tuple[str, str] | None:
    match value:
        case [str(kind), str(text)]:
            return kind, text
        case _:
            return None


def _mapping(value: object) -> Mapping[str, object] | None:
    return value if isinstance(value, dict) else None
