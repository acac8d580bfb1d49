"""The journal of a command at its worker: how it is sent, and one of its own for a command that is written by hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast, final

import trio

from tailrace._core import Journal
from tailrace.errors import LocalProtocolError, RemoteProtocolError, TailraceError
from tailrace.limits import MIB
from tailrace.link.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace.link.proxy import JournalSink, JournalSource
    from tailrace.link.pump import Pump
    from tailrace.link.stream import Outgoing
    from tailrace.messages import StreamProgress, Value

# What was sent without a break, so that more is likely to come soon: it is then looked for a moment later.
FLOOD_BYTES = 128 * 1024
NAP_S = 0.001
# How far a hand-written command may be ahead of its master: one stream's window more than what is on its way.
AHEAD_BYTES_MAX = 4 * MIB


async def send_journal(pump: Pump, command: str, offset: int, source: JournalSource) -> None:
    """Send a journal from `offset` on, until the master has its end safe.

    Cancelled: the stream is reset, and the command is lost to the master.

    Raises:
        RemoteError: the master does not want it.
        ConnectionLost, ConnectionClosed: the session is over.
    """

    def on_progress(progress: StreamProgress) -> None:
        if progress.durable:
            source.released(progress.durable)

    stream = pump.open("journal", command, offset, on_progress)
    try:
        with stream.scope:
            await _send(stream, source)
        stream.check()
    finally:
        stream.reset("Cancelled: the worker gave up the command")


async def _send(stream: Outgoing, source: JournalSource) -> None:
    journal = source.journal
    waited_at = stream.sent
    while True:
        await stream.wait_room()
        # Read before the rest is moved: what is appended between the two is found in the next turn.
        ended, end = journal.ended, journal.end
        if stream.write_journal(journal):
            await trio.lowlevel.checkpoint()
        elif stream.sent < end:
            raise RemoteProtocolError(f"the journal stands at {end}, and nothing of it can be sent from {stream.sent}")
        elif ended:
            break
        else:
            in_flood, waited_at = end - waited_at >= FLOOD_BYTES, end
            if in_flood:
                # To be rung up costs more than what one record brings.
                await trio.sleep(NAP_S)
            else:
                await source.wait_grown(end)
    await stream.finish()


@final
class OwnJournal:
    """A journal in memory, for a command that is written by hand with `callRemote`."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._changed = Bell()
        self._sent = trio.Event()
        self._error: Exception | None = None

    async def run(self, sink: JournalSink) -> None:
        try:
            await sink.send(self)
        except TailraceError as error:
            self._error = error
        finally:
            self._sent.set()
            self._changed.ring()

    def append(self, updates: Mapping[str, object]) -> None:
        values: dict[str, Value] = {}
        for key, value in updates.items():
            if key in ("stdout", "stderr", "header"):
                self._log(key, None, value)
            elif key == "log":
                name, data = cast("tuple[str, object]", value)
                self._log("log", name, data)
            else:
                values[key] = cast("Value", value)
        if values:
            self.journal.update(values)
        self._changed.ring()

    def finish(self, failure: tuple[str, str] | None) -> None:
        self.journal.finish(failure)
        self._changed.ring()

    async def wait_room(self) -> None:
        self._check()
        while self.journal.end - self.journal.begin > AHEAD_BYTES_MAX:
            await self._changed.wait()
            self._check()

    async def wait_sent(self) -> None:
        await self._sent.wait()
        self._check()

    async def wait_grown(self, end: int) -> None:
        while self.journal.end <= end and not self.journal.ended:
            await self._changed.wait()

    def released(self, offset: int) -> None:
        self.journal.release(offset)
        self._changed.ring()

    def spooling(self, on: bool) -> None:
        """Memory is all that there is: who writes waits."""

    def _log(self, channel: str, name: str | None, data: object) -> None:
        raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        if not isinstance(raw, bytes | bytearray | memoryview):
            raise LocalProtocolError(f"{channel!r} is str or bytes, not {type(data).__name__}")
        if raw:
            self.journal.append(channel, raw, time.time_ns() // 1000, time.monotonic_ns() // 1000, name)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
