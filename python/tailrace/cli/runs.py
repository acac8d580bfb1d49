"""`tailrace workers`, `ps`, `show` and `stop`: what there is, and an end to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .api import Json, Row, RunInfo, number, open_api
from .counts import counted
from .ending import outcome, seconds, size
from .failure import USAGE, Failure
from .settings import Told  # noqa: TC001  (cyclopts reads the annotations)
from .show import clock, print_json
from .table import print_pairs, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping


async def workers(*, told: Told) -> int:
    """List the workers that this master knows.

    As in: `tailrace workers`, or for scripts `tailrace workers --json`
    """
    async with open_api(told) as api:
        rows = await api.workers()
    if told.json:
        for row in rows:
            print_json(row)
    elif not rows:
        print("no workers yet; `tailrace master add-worker DIR NAME` adds one")
    else:
        print_table(("NAME", "STATE", "RUNNING", "SINCE", "FROM"), [_worker_cells(row) for row in rows])
    return 0


async def ps(
    *,
    all: Annotated[bool, Parameter(alias="-a")] = False,  # noqa: A002  (it is the option's name)
    limit: Annotated[int, Parameter(alias="-n")] = 20,
    told: Told,
) -> int:
    """List the runs that are running.

    As in: `tailrace ps`, or with the ended ones `tailrace ps --all`

    Parameters
    ----------
    all
        The ended ones too, the newest first.
    limit
        At most so many.
    """
    if limit < 1:
        raise Failure(f"--limit {limit}: at least one", "as in: --limit 100", code=USAGE)
    async with open_api(told) as api:
        runs = await api.runs(limit=limit, state=None if all else "running")
    if told.json:
        for run in runs:
            print_json(run.row)
    elif not runs:
        print("nothing was run yet" if all else "nothing is running; `tailrace ps --all` lists what was")
    else:
        print_table(("RUN", "WORKER", "STATE", "TIME", "COMMAND"), [_run_cells(run) for run in runs])
    return 0


async def show(run: str, /, *, told: Told) -> int:
    """Show what is kept of a run: its end, its times, and the receipt that master and worker agree on.

    As in: `tailrace show last`

    Parameters
    ----------
    run
        Its id, the beginning of it, or `last`.
    """
    async with open_api(told) as api:
        found = await api.run(run)
    if told.json:
        print_json(found.row)
    else:
        print_pairs(_facts(found))
    return 0


async def stop(
    run: str, /, *, why: Annotated[str, Parameter(allow_leading_hyphen=True)] = "tailrace stop", told: Told
) -> int:
    """Interrupt a run on its worker, with everything that it has started.

    As in: `tailrace stop last --why "wrong branch"`. A run that has ended is left as it is.

    Parameters
    ----------
    run
        Its id, the beginning of it, or `last`.
    why
        The reason; the log's header keeps it.
    """
    async with open_api(told) as api:
        found = await api.run(run)
        if not found.ended:
            await api.stop(found.id, why)
        if told.json:
            print_json((await api.run(found.id)).row)
    return 0


def _worker_cells(row: Row) -> tuple[str, ...]:
    since = number(row, "since")
    return (
        _plain(row.get("name")),
        _plain(row.get("state")),
        _plain(row.get("running")),
        ago(since) if since else "",
        _plain(row.get("peer")),
    )


def _run_cells(run: RunInfo) -> tuple[str, ...]:
    took = run.elapsed if run.ended else time.time() - run.started
    return (run.id, run.worker, outcome(run), seconds(took) if took is not None else "", run.title)


def _facts(run: RunInfo) -> list[tuple[str, str]]:
    facts = [
        ("run", run.id),
        ("command", run.title),
        ("worker", run.worker),
        ("builder", _plain(run.row.get("builder"))),
        ("state", run.state if run.ended else outcome(run)),
        ("outcome", outcome(run) if run.ended else ""),
        ("exit code", "" if run.signal else _plain(run.rc)),
        ("signal", _plain(run.signal)),
        ("reason", _plain(run.reason)),
        ("failure", _plain(run.failure)),
        ("started", clock(run.started) if run.started else ""),
        ("elapsed", seconds(run.elapsed) if run.elapsed is not None else ""),
        ("log", size(total) if (total := number(run.row, "bytes")) is not None else ""),
    ]
    receipt = run.row.get("receipt")
    if isinstance(receipt, dict):
        facts += _receipt_facts(receipt)
    return [(name, value) for name, value in facts if value]


def _receipt_facts(receipt: Mapping[str, Json]) -> list[tuple[str, str]]:
    facts = [("receipt", f"{_plain(receipt.get('records'))} records, chain {_plain(receipt.get('chain'))[:16]}…")]
    agrees = receipt.get("agrees")
    if agrees is False:
        facts.append(("", "DAMAGED: the worker's receipt differs from what the master has"))
    channels = receipt.get("channels")
    if isinstance(channels, dict):
        for name, counts in channels.items():
            facts.append((f"  {name}", counted(counts)))
    return facts


def ago(since: float) -> str:
    return f"{seconds(max(0.0, time.time() - since))} ago"


def _plain(value: Json) -> str:
    return "" if value is None else str(value)
