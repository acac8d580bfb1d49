"""Builds that are broken on purpose, each in one place. The simulator must find out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

from tailrace.link.command import Command
from tailrace.link.flow import Outflow
from tailrace.link.holdings import Holding, Holdings
from tailrace.link.stream import Incoming
from tailrace.logs.writer import RunWriter
from tailrace.master.command import RunCommand

Mutation = Callable[[], AbstractContextManager[None]]


@contextmanager
def durable_before_sync() -> Iterator[None]:
    """The store says that bytes are safe, and has not synced them."""
    with mock.patch.object(RunWriter, "make_safe", return_value=False):
        yield


@contextmanager
def durable_when_taken() -> Iterator[None]:
    """The link takes for safe what the Impl has only taken: one check is skipped."""
    with mock.patch.object(RunCommand, "durable_on_return", new=True):
        yield


@contextmanager
def a_window_is_dropped() -> Iterator[None]:
    """Now and then a receiver does not say what it has taken, and what it has safe."""
    real, count = Incoming.settle, 0

    def settle(self: Incoming, taken: int, durable: int) -> None:
        nonlocal count
        count += 1
        if count % 4:
            real(self, taken, durable)

    with mock.patch.object(Incoming, "settle", settle):
        yield


@contextmanager
def resumed_at_the_wrong_offset() -> Iterator[None]:
    """A worker goes on with the record before the one that is asked for."""
    real = Holding._agree

    def agree(self: Holding, request) -> tuple[int, bool]:
        offset, agrees = real(self, request)
        journal = None if self._source is None else self._source.journal
        if journal is not None and journal.begin < offset:
            return journal.begin, agrees
        return offset, agrees

    with mock.patch.object(Holding, "_agree", agree):
        yield


@contextmanager
def a_batch_is_delivered_twice() -> Iterator[None]:
    """In a new session the master takes once more what it has had already."""
    real, count = Command._show, 0

    async def show(self: Command, part) -> None:
        nonlocal count
        count += 1
        await real(self, part)
        if count % 5 == 0 and not part.complete:
            await real(self, part)

    with mock.patch.object(Command, "_show", show):
        yield


@contextmanager
def a_start_is_not_remembered() -> Iterator[None]:
    """A worker does not know a start that is said again, and does it again."""
    with mock.patch.object(Holdings, "find", return_value=None):
        yield


@contextmanager
def a_sender_forgets_too_early() -> Iterator[None]:
    """Who sends a file forgets what it has sent, and not what was taken."""
    real = Outflow._forget
    with mock.patch.object(Outflow, "_forget", lambda self, taken: real(self, self._end)):
        yield


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        durable_before_sync,
        durable_when_taken,
        a_window_is_dropped,
        resumed_at_the_wrong_offset,
        a_batch_is_delivered_twice,
        a_start_is_not_remembered,
        a_sender_forgets_too_early,
    )
}
