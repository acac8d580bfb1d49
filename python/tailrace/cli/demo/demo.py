"""`tailrace demo`: a master and two workers on this machine, and a build to watch."""

from __future__ import annotations

import signal
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tailrace.cli.api import open_api
from tailrace.cli.ending import outcome, seconds, size
from tailrace.cli.failure import OURS, SIGNALLED, Failure
from tailrace.cli.settings import Settings
from tailrace.cli.table import style
from tailrace.cli.worker import make_worker
from tailrace.master.config import add_worker, create_master

from .farm import Daemon, serving
from .screen import Screen
from .script import W1, W2, Script, Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tailrace.cli.api import Api, Json

_ANY_PORT = "tailrace://127.0.0.1:0"


async def demo(*, keep: Path | None = None) -> int:
    """See it work: a master, two workers and a real build on this machine, live, in a few seconds.

    As in: `tailrace demo --keep d`, then `tailrace --dir d/master logs last`. Exits with 0 when all went as scripted.

    Parameters
    ----------
    keep
        Keep everything in this new directory. Without it, all is removed at the end.
    """
    began = time.monotonic()
    screen = Screen()
    with _home(keep) as home:
        screen.title(f"A master and two workers on this machine, in {home}")
        screen.note("By the script one step fails, and one is interrupted.", "dim")
        async with _heeding_signals(), _farm(home, screen) as api:
            script = Script(api, screen, home / "files")
            await script.play()
        _summarize(screen, script.steps)
        return _conclude(screen, script, home if keep is not None else None, time.monotonic() - began)


@contextmanager
def _home(keep: Path | None) -> Iterator[Path]:
    """Where the demo lives: to stay, or for as long as it runs."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="tailrace-demo-", ignore_cleanup_errors=True) as directory:
            yield Path(directory)
        return
    if keep.exists() and any(keep.iterdir()):
        raise Failure(f"{keep} is there already, and is not empty", "name a new directory")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.absolute()


@asynccontextmanager
async def _farm(home: Path, screen: Screen) -> AsyncIterator[Api]:
    """A serving master with two attached workers."""
    master = home / "master"
    create_master(master, [_ANY_PORT])
    secrets = {name: add_worker(master, name) for name in (W1, W2)}
    (home / "files").mkdir()
    async with serving("master", "serve", master, errors=home / "master.stderr") as daemon:
        url = await daemon.line("listening ")
        await daemon.line("ready")
        screen.fact("master", url)
        async with _worker(home, W1, url, secrets) as first, _worker(home, W2, url, secrets) as second:
            for name, worker in ((W1, first), (W2, second)):
                screen.fact(name, f"attached to {await worker.line('attached ')}")
            screen.legend()
            async with open_api(Settings(directory=master)) as api:
                yield api


@asynccontextmanager
async def _worker(home: Path, name: str, url: str, secrets: Mapping[str, str]) -> AsyncIterator[Daemon]:
    make_worker(home / name, masters=[url], name=name, secret=secrets[name])
    arguments = ("worker", "serve", home / name, "--drain-timeout", "1")
    async with serving(*arguments, errors=home / f"{name}.stderr") as daemon:
        yield daemon


@asynccontextmanager
async def _heeding_signals() -> AsyncIterator[None]:
    """SIGTERM and SIGHUP end the block in order, as Ctrl-C does."""
    async with trio.open_nursery() as nursery:
        await nursery.start(_heed)
        yield
        nursery.cancel_scope.cancel()


async def _heed(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            raise Failure("the demo was ended before its time", code=SIGNALLED + number)


def _summarize(screen: Screen, steps: list[Step]) -> None:
    screen.note()
    rows = [_row(step) for step in sorted(steps, key=lambda step: step.run.started)]
    screen.table(("STEP", "WORKER", "OUTCOME", "TIME", "LOG", "LINES", "RECEIPT"), rows)
    screen.note()


def _row(step: Step) -> list[tuple[str, str]]:
    word = outcome(step.run)
    log = sum(len(data) for data in step.shown.values())
    lines = sum(data.count(b"\n") for data in step.shown.values())
    return [
        (step.name, "bold"),
        (step.run.worker, ""),
        (word, style(word)),
        (seconds(step.run.elapsed), ""),
        (size(log), ""),
        (f"{lines:,}", ""),
        (_receipt(step.run.row.get("receipt")), "dim"),
    ]


def _receipt(receipt: Json) -> str:
    chain = receipt.get("chain") if isinstance(receipt, dict) else None
    return f"{chain[:12]}… agreed" if isinstance(chain, str) else "none"


def _conclude(screen: Screen, script: Script, kept: Path | None, took: float) -> int:
    broken = [sentence for sentence, holds in script.checks if not holds]
    for sentence in broken:
        screen.note(f"✗ not as scripted: {sentence}", "bold red")
    if not broken:
        screen.note(f"✓ all as scripted: {len(script.checks)} checks in {seconds(took)}", "green")
    if kept is None:
        screen.note("Nothing is kept; `tailrace demo --keep DIR` keeps it.", "dim")
    else:
        screen.note(f"Kept in {kept}. Look at it again:")
        screen.note(f"  tailrace master serve {kept / 'master'} &")
        screen.note(f"  tailrace --dir {kept / 'master'} ps --all")
        screen.note(f"  tailrace --dir {kept / 'master'} logs last --timestamps")
    return OURS if broken else 0
