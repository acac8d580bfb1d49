"""What a master and its worker agree on at the begin of each session: which commands there are, and where they go on.

The worker says what it holds. What both have goes on; what only the worker has is taken over, if the master knows it
from an earlier process, or forgotten; what only the master has is lost (PROTOCOL.md section 9).
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Protocol, final

import trio

from tailrace.errors import ConnectionClosed, ConnectionLost, RemoteError, RemoteProtocolError
from tailrace.link.bell import Bell, Turn
from tailrace.link.foreign import Raised, call_foreign
from tailrace.link.resume import parse_resumed
from tailrace.messages import ForgetCommand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tailrace.link.command import Command
    from tailrace.link.lifeline import Lifeline
    from tailrace.link.pump import Pump
    from tailrace.link.resume import Resume
    from tailrace.messages import Held, HeldCommand

log = logging.getLogger("tailrace.link")


class Host(Protocol):
    """Whose commands they are."""

    @property
    def workerName(self) -> str:
        """Who the worker is."""

    async def greet(self, pump: Pump) -> None:
        """At the begin of a later session: make everything but the commands as it was."""

    def take_over(self, held: HeldCommand, resume: Resume) -> Command:
        """Go on with a command of an earlier process: one more of its commands, which runs."""


@final
class Reunion:
    """Both sides' commands, session by session."""

    def __init__(self, host: Host, line: Lifeline, commands: Mapping[str, Command]) -> None:
        """`commands` is the host's, which it changes."""
        self.ask: Callable[[HeldCommand], Awaitable[Resume | None]] | None = None
        """Asked for each command that only the worker has; `None` from it: it is forgotten."""
        self._host = host
        self._line = line
        self._commands = commands
        self._held: tuple[int, Held] | None = None
        self._said = Bell()
        self._one_at_a_time = Turn()

    def on_held(self, call: int, held: Held) -> bool:
        """The worker says what it holds. Whether it may: once in a session."""
        is_first = self._held is None
        if is_first:
            self._held = (call, held)
            self._said.ring()
        return is_first

    def end_session(self) -> None:
        """Who waits for what the worker holds finds out that it will not say it."""
        self._held = None
        self._said.ring()

    async def held(self) -> tuple[HeldCommand, ...]:
        """What the worker holds, as it said in this session. Raises ConnectionLost if it does not say it."""
        return (await self._wait_held())[1].commands

    async def begin(self) -> None:
        """In the first session."""
        pump = self._line.pump
        with contextlib.suppress(ConnectionLost, ConnectionClosed):
            # Whatever is started meanwhile is started in this session: the worker did not have it when it said what
            # it has.
            await self._agree(pump, {})

    async def go_on(self) -> None:
        """In a later one. Only when all is agreed upon others' calls may go."""
        pump = self._line.pump
        try:
            with trio.fail_after(self._line.limits.handshake_timeout_s):
                await self._host.greet(pump)
                await self._wait_held()
            await self._agree(pump, dict(self._commands))
        except (ConnectionLost, ConnectionClosed):
            return
        except (RemoteError, trio.TooSlowError) as error:
            why = str(error) or "it does not answer"
            self._line.break_off(ConnectionLost(f"{self._host.workerName} cannot go on: {why}"))
            return
        if pump is self._line.pump and pump.why is None:
            log.info("%s is back", self._host.workerName)
            self._line.ready()

    # ------------------------------------------------------------ private

    async def _wait_held(self) -> tuple[int, Held]:
        if self._held is None:
            self._line.check()
            await self._said.wait()
        if self._held is None:
            raise ConnectionLost
        return self._held

    async def _agree(self, pump: Pump, expected: dict[str, Command]) -> None:
        """`expected`: what the worker must have, if it was ever told to start it."""
        call, held = await self._wait_held()
        pump.reply(call, None)
        # A session may break, and the next one come, while the master is still asked what it knows of a command.
        async with self._one_at_a_time:
            for entry in held.commands:
                expected.pop(entry.command, None)
                if (command := self._commands.get(entry.command)) is not None:
                    await self._resume(pump, command)
                else:
                    await self._take_over(pump, entry)
            for command in expected.values():
                # A start that was not answered is said again.
                if command.answered.is_set():
                    command.on_lost(ConnectionLost(f"{self._host.workerName} does not know the command any more"))

    async def _take_over(self, pump: Pump, held: HeldCommand) -> None:
        try:
            resume = None if self.ask is None else await call_foreign(self.ask, held)
        except Raised as raised:
            # Not forgotten, which would end it: the next session may have more luck.
            raised.report("%s: resumeCommand raised for command %s", self._host.workerName, held.command)
            return
        if resume is None:
            await self._forget(pump, held.command)
        else:
            await self._resume(pump, self._host.take_over(held, resume))

    async def _resume(self, pump: Pump, command: Command) -> None:
        try:
            command.on_resumed(parse_resumed(await pump.call(command.resumption())))
        except RemoteProtocolError as error:
            pump.breach(error)
            raise ConnectionLost(str(error)) from None
        except RemoteError as error:
            log.error("%s: command %s cannot go on: %s", self._host.workerName, command.id, error)
            command.on_lost(ConnectionLost(f"the worker cannot go on with it: {error}"))

    async def _forget(self, pump: Pump, command: str) -> None:
        try:
            await pump.call(ForgetCommand(command))
        except RemoteError as error:
            log.info("%s does not forget command %s: %s", self._host.workerName, command, error)
