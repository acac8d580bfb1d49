"""Supervisors: the small processes that own a command's children, output and journal; the daemon's end of them.

A supervisor has a directory with `journal.ring`, the journal's file, which is mapped here, and `control.sock`, over
which it is told what to do. No output of a child passes through this module: `link` sends from the mapped journal.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, cast, final

import trio

from tailrace._core import Journal, decode_value, encode_value
from tailrace.errors import LocalProtocolError, TailraceError
from tailrace.link.bell import Bell

from .child import Child, Exit, LogFile, exit_of, spawn_fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from tailrace._core import Value

__all__ = ["Child", "Exit", "LogFile", "Supervised", "SupervisorLost"]

APPEND_BYTES_MAX = 256 * 1024
"""What a supervisor takes of `append` at a time."""

logger = logging.getLogger("tailrace.worker")

LEAVE_S = 15.0
"""How long a supervisor may take to kill what is left, its own bound for that included, before it is killed itself."""

RECEIVE_BYTES = 64 * 1024
"""More than a supervisor ever says at once."""

RING = "journal.ring"
SOCKET = "control.sock"


class SupervisorLost(TailraceError):
    """A supervisor has died before its command was over. What its journal holds can still be read."""


@final
class Supervised:
    """One command's journal, and its children one after another."""

    def __init__(
        self, name: str, directory: Path, pid: int, connection: trio.socket.SocketType, nursery: trio.Nursery
    ) -> None:
        self.name = name
        """Of the command, for people."""
        self.directory = directory
        self.pid = pid
        """0: not known before it has said so."""
        self.journal = Journal.map(str(directory / RING))
        self.stays = False
        """Whether its supervisor is to be there for another command, when this one was a short one and is over."""
        self.connection = connection
        self._nursery = nursery
        self._outbox = bytearray()
        self._count = 0
        self._asked: dict[int, _Answer] = {}
        self._greeting: Mapping[str, Value] = {}
        self._greeted = trio.Event()
        self._grown = Bell()
        self._gone = trio.Event()
        # Of one that an earlier daemon has started it is not known.
        self._is_spooling: bool | None = False if pid else None
        self._ends_itself = False
        self._leaving = False
        self._died = False
        self.is_detached = False
        self.was_handed_on = False
        """Its supervisor was asked to be there for another command. Nothing can be asked of it here any more."""
        self.is_idle = False
        """It has no command yet: one that dies needs no successor."""
        self.is_fresh = False
        """And it is. The connection is of no more use here."""

    # The children

    async def spawn(self, child: Child, header: bytes = b"") -> Exit:
        """Runs one child to its end, with `header` before it. Cancelled, it leaves the child running.

        `interrupt` ends it. After an interrupt no child is started: the exit says `interrupted`.
        """
        if len(header) > APPEND_BYTES_MAX:
            await self.append("header", header)
            header = b""
        self._ends_itself = child.final
        fields = {**spawn_fields(child), "header": header or None, "stays": self.stays}
        return exit_of(await self._ask("spawn", fields))

    async def rejoin(self) -> bool:
        """In the place of an earlier daemon: waits until the child that it has started, if it runs yet, has ended.

        True: with that the journal is ended. Cancelled, nothing has happened.
        """
        await self._greeted.wait()
        if (running := cast("int | None", self._greeting.get("running"))) is not None:
            await self._wait_answer(running)
        return self.ends_itself

    async def interrupt(self, why: str, *, orphaned: bool = False) -> None:
        """Begins to stop the child that runs, in the manner of its `Child`, with all processes that it has started.

        Returns at once, done also when it is cancelled; `spawn` returns when the child has ended. Harmless when
        nothing runs. `orphaned`: that is the `failure_reason` then.
        """
        self._post({"op": "interrupt", "why": why, "orphaned": orphaned})
        await trio.lowlevel.checkpoint()

    @property
    def ends_itself(self) -> bool:
        """Whether the journal is ended, or will be by the supervisor, whatever becomes of this daemon."""
        return self.journal.ended or (self._ends_itself and not self._outbox)

    # The journal

    async def append(self, channel: str, data: bytes) -> None:
        """Adds bytes to `stdout`, `stderr` or `header`. Waits while the journal is full.

        Cancelled, it may have added some, all or none.
        """
        await trio.lowlevel.checkpoint()
        for begin in range(0, len(data), APPEND_BYTES_MAX):
            await self._ask("append", {"channel": channel, "data": data[begin : begin + APPEND_BYTES_MAX]})

    async def update(self, values: Mapping[str, Value]) -> None:
        """Adds structured updates. Waits and is cancelled as `append`."""
        await self._ask("update", {"values": values})

    async def finish(self, failure: tuple[str, str] | None = None) -> None:
        """Ends the journal; the supervisor goes when all of it was released. Cancelled, it may be ended yet."""
        await self._ask("finish", {"failure": failure})

    async def wait_grown(self, end: int) -> None:
        """Waits until the journal reaches beyond `end`, or has ended."""
        await trio.lowlevel.checkpoint()
        while self.journal.end <= end and not self.journal.ended:
            if self._gone.is_set():
                raise self._lost()
            if self.journal.wants_bell():
                await self._grown.wait()

    def released(self, offset: int) -> None:
        """The master has everything before `offset` safe: it may be forgotten here."""
        # A ring that was handed on is not ours: its bell may be for another.
        if not self.was_handed_on and self.journal.release(offset):
            self._post({"op": "room"})

    def spooling(self, on: bool) -> None:
        """The master is away: what the ring cannot hold goes to the disk. Or it is back: the child waits for it."""
        if on != self._is_spooling:
            self._is_spooling = on
            self._post({"op": "spooling", "on": on})

    def detach(self) -> None:
        """Lets it live on for the next daemon. Nothing can be asked of it any more; `aclose` does nothing."""
        self._leaving = self.is_detached = True
        self.connection.close()
        self._gone.set()

    async def aclose(self) -> None:
        """Kills what is left, unless the journal has ended, and drops the directory. Bounded, and not cancelled.

        One that `stays` is asked to be there for another command instead, and not waited for: a second call does that.
        """
        with trio.CancelScope(shield=True):
            if not self._leaving:
                self._leaving = True
                if self._can_be_handed_on():
                    self._post({"op": "again"})
                    self.was_handed_on = True
                    return
                self._post({"op": "leave"})
            with trio.move_on_after(LEAVE_S):
                await self._gone.wait()
            if not self._gone.is_set():
                if self.pid:
                    with suppress(ProcessLookupError):
                        os.kill(self.pid, signal.SIGKILL)
                self.connection.close()
                await self._gone.wait()
            if not self.is_detached and not self.is_fresh:
                await self.remove_directory()

    async def remove_directory(self) -> None:
        """Of a supervisor that is gone, and may not have done so. Not cancelled."""
        if os.path.exists(self.directory):  # noqa: ASYNC240 - a moment
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(self.directory, ignore_errors=True))

    def _can_be_handed_on(self) -> bool:
        journal = self.journal
        is_over = journal.ended and journal.begin == journal.end
        return self.stays and is_over and not (self._died or self._outbox or self._gone.is_set())

    # The connection

    async def _ask(self, op: str, fields: Mapping[str, Value]) -> Mapping[str, Value]:
        await trio.lowlevel.checkpoint()
        if self._died:
            raise self._lost()  # its successor does nothing but end the journal
        self._count += 1
        number = self._count
        self._asked[number] = _Answer()
        self._post({"op": op, "id": number, **fields})
        return await self._wait_answer(number)

    async def _wait_answer(self, number: int) -> Mapping[str, Value]:
        answer = self._asked[number]
        try:
            if not self._gone.is_set():
                await answer.there.wait()
        finally:
            del self._asked[number]
        if answer.message is None:
            raise self._lost()
        if answer.message["op"] == "failed":
            raise LocalProtocolError(str(answer.message["text"]))
        return answer.message

    def _post(self, message: Mapping[str, Value]) -> None:
        """Sends at once what can be sent at once, which is mostly all: a cancellation finds no half message."""
        if self.was_handed_on:
            return
        body = encode_value(message)
        flushing = bool(self._outbox)
        self._outbox += len(body).to_bytes(4, "big") + body
        if not flushing:
            self._send()
            if self._outbox:
                self._nursery.start_soon(self._flush)

    def _send(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: os.write(self.connection.fileno(), self._outbox)]
        except BlockingIOError:
            pass
        except OSError:
            self._outbox.clear()  # it is gone, as `_listen` will notice

    async def _flush(self) -> None:
        while self._outbox and not self._gone.is_set():
            try:
                await trio.lowlevel.wait_writable(self.connection)
            except (OSError, trio.ClosedResourceError):
                break
            self._send()
        self._outbox.clear()

    async def live(self, succeed: Callable[[], Awaitable[tuple[int, trio.socket.SocketType]]]) -> None:
        """Takes what the supervisor says, until it goes, or is there for another command.

        One that dies is given a successor, if there can be one.
        """
        try:
            # A successor that dies before it has said a word would have others do so for ever.
            while await self._listen() and (self._greeted.is_set() or not self._died):
                self._died = self._ends_itself = True
                self._greeted = trio.Event()
                self.connection.close()
                self.pid, self.connection = await succeed()
        except OSError as error:
            logger.error("%s: nobody can take over for a supervisor that has died: %s", self.name, error)
        finally:
            if not self.is_fresh:
                self.connection.close()
            self._gone.set()
            self._greeted.set()
            self._grown.ring()

    async def _listen(self) -> bool:
        """Until the connection ends. True: it should not have."""
        received = bytearray()
        try:
            # Not cancelled: it ends with the supervisor, or with `detach`. Until then `aclose` has something to say.
            with trio.CancelScope(shield=True):
                while data := await self.connection.recv(RECEIVE_BYTES):
                    received += data
                    for message in _messages(received):
                        self._hear(cast("Mapping[str, Value]", decode_value(message)))
                    if self.is_fresh:
                        return False
        except (OSError, trio.ClosedResourceError):
            pass
        self._outbox.clear()
        for answer in self._asked.values():
            answer.there.set()
        # One that has gone of itself has left nothing behind.
        return not (self._leaving or self.is_idle) and os.path.exists(self.directory / RING)  # noqa: ASYNC240 - a moment

    def _hear(self, message: Mapping[str, Value]) -> None:
        if message["op"] == "grown":
            self._grown.ring()
        elif message["op"] == "fresh":
            self.is_fresh = True
        elif message["op"] == "hello":
            self._greet(message)
        elif answer := self._asked.get(cast(int, message.get("id", 0))):
            answer.message = message
            answer.there.set()

    def _greet(self, hello: Mapping[str, Value]) -> None:
        """It has said who it is, what runs, and how far the command is."""
        self._greeting = hello
        self.pid = cast(int, hello["pid"])
        self._ends_itself = self._ends_itself or bool(hello["final"]) or bool(hello["over"])
        # What an earlier daemon has asked is answered to this one.
        last = cast("Mapping[str, Value]", hello["last"] or {})
        running = cast("int | None", hello["running"])
        self._count = max(self._count, running or 0, cast(int, last.get("id", 0)))
        if running is not None:
            self._asked.setdefault(running, _Answer())
        self._greeted.set()
        self._grown.ring()

    def _lost(self) -> SupervisorLost:
        return SupervisorLost(f"the supervisor {self.pid} of {self.name} has died")


@final
class _Answer:
    """What one request waits for."""

    def __init__(self) -> None:
        self.there = trio.Event()
        self.message: Mapping[str, Value] | None = None


def _messages(received: bytearray) -> Iterator[bytes]:
    """Takes the whole messages from the front of what was received."""
    while len(received) >= 4:
        end = 4 + int.from_bytes(received[:4], "big")
        if len(received) < end:
            return
        message = bytes(received[4:end])
        del received[:end]
        yield message


def connect(directory: Path) -> trio.socket.SocketType:
    """A connection to the supervisor in `directory`, whose path may be longer than a socket's address."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(f"/proc/self/fd/{handle}/{SOCKET}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(handle)
    return trio.socket.from_stdlib_socket(connection)
