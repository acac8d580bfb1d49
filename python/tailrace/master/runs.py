"""A run, as who started it sees it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tailrace._core import Record
    from tailrace.logs import LogStore
    from tailrace.master.command import RunCommand
    from tailrace.master.result import RunResult


@final
class Run:
    """A command that the master keeps: its log, its result."""

    def __init__(self, command: RunCommand, store: LogStore) -> None:
        self._command = command
        self._store = store

    @property
    def id(self) -> str:
        """The run's id, which is its command's."""
        return self._command.id

    @property
    def worker(self) -> str:
        """The name of the worker on which it runs."""
        return self._command.worker

    async def wait(self) -> RunResult:
        """How it ended, when it has ended and its log is complete in the store. Cancelling it leaves the run alone."""
        return await self._command.wait()

    async def interrupt(self, why: str = "interrupted") -> None:
        """Ask the worker to stop it; returns when it knows. A run that has ended is left alone."""
        await self._command.interrupt(why)

    async def follow(self, from_line: int = 1, channel: str | None = None) -> AsyncGenerator[Record]:
        """Its log records from that line on, of one channel or of all, as they arrive, until it has ended.

        The first record is cut at that line. Any number may follow; each reads the store at its own pace.
        """
        async with aclosing(self._store.follow(self.id, from_line=from_line, channel=channel)) as records:
            async for record in records:
                yield record
