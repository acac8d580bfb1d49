"""The workers that may attach, and those that are attached."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import final

import attrs
import trio

from tailrace.errors import LocalProtocolError
from tailrace.link import Connection
from tailrace.link.bell import Bell

BASE_BUILDER = "~"
"""The builder whose directory is the worker's base directory: where a run without a builder goes."""


@final
@attrs.define(eq=False)
class Attachment:
    """One attached worker: its connection, its builders, and how much it has to do."""

    connection: Connection
    since: float
    builders: dict[str, str]
    running: int = 0
    setting: trio.Lock = attrs.field(factory=trio.Lock)


@final
class Roster(Mapping[str, Connection]):
    """Known workers with their secrets, and as a mapping the attached ones by name."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self.accounts = dict(accounts)
        self._attached: dict[str, Attachment] = {}
        self._changed = Bell()

    def __getitem__(self, name: str) -> Connection:
        return self._attached[name].connection

    def __iter__(self) -> Iterator[str]:
        return iter(self._attached)

    def __len__(self) -> int:
        return len(self._attached)

    def attachment(self, name: str) -> Attachment:
        """What is known of an attached worker.

        Raises:
            LocalProtocolError: it is unknown, or not attached.
        """
        try:
            return self._attached[name]
        except KeyError:
            what = "is not attached" if name in self.accounts else "is unknown"
            raise LocalProtocolError(f"worker {name} {what}") from None

    def least_busy(self) -> str:
        """The attached worker with the fewest running commands; of several, the one that attached first.

        One that wants to end, or is away, is taken only if there is no other.

        Raises:
            LocalProtocolError: none is attached.
        """

        def order(name: str) -> tuple[bool, bool, int, float]:
            attachment = self._attached[name]
            connection = attachment.connection
            return connection.state != "attached", connection.draining, attachment.running, attachment.since

        if not self._attached:
            raise LocalProtocolError("no worker is attached")
        return min(self._attached, key=order)

    def attach(self, connection: Connection, builders: dict[str, str]) -> None:
        """Take `connection`, which has these builders, as its worker's, until it is lost."""
        self._attached[connection.workerName] = Attachment(connection, time.time(), builders)
        self._changed.ring()
        connection.notifyOnDisconnect(lambda: self._detach(connection))

    async def wait_attached(self, name: str) -> Connection:
        """The worker's connection, as soon as it has one. Cancelling it leaves nothing behind."""
        while name not in self._attached:
            await self._changed.wait()
        connection = self._attached[name].connection
        await trio.lowlevel.checkpoint()
        return connection

    def _detach(self, connection: Connection) -> None:
        attachment = self._attached.get(connection.workerName)
        if attachment is not None and attachment.connection is connection:
            del self._attached[connection.workerName]
