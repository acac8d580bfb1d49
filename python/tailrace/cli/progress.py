"""How far a transfer is: a bar on a terminal, nothing anywhere else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio

from .terminal import interactive, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.progress import Progress, TaskID

_REFRESH_S = 0.1


@final
class Moved:
    """Counts the bytes that pass."""

    def __init__(self) -> None:
        self.bytes = 0

    async def counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.bytes += len(piece)
            yield piece


@asynccontextmanager
async def progress(what: str, total: int | None, *, quiet: bool = False) -> AsyncIterator[Moved]:
    """Shows what `Moved` counts inside the block, on standard error if that is a terminal.

    No thread: a task looks ten times a second.
    """
    moved = Moved()
    if quiet or not interactive(2):
        yield moved
        return
    bar, task = _bar(printable(what), total)
    with bar:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refresh, bar, task, moved)
            yield moved
            nursery.cancel_scope.cancel()
        bar.update(task, completed=moved.bytes, total=moved.bytes, refresh=True)


async def _refresh(bar: Progress, task: TaskID, moved: Moved) -> None:
    while True:
        bar.update(task, completed=moved.bytes, refresh=True)
        await trio.sleep(_REFRESH_S)


def _bar(what: str, total: int | None) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
    return bar, bar.add_task(escape(what), total=total)
