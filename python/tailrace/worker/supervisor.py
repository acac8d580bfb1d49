"""Supervisors: the small processes that own a command's children, output and journal; the daemon's end of them.

A supervisor has a directory with `journal.ring`, the journal's file, which is mapped here, and `control.sock`, over
which it is told what to do. No output of a child passes through this module: `link` sends from the mapped journal.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast, final
from urllib.parse import quote

import trio

from tailrace._core import Journal, decode_value, encode_value
from tailrace.errors import LocalProtocolError, TailraceError

from .child import Child, Exit, LogFile, exit_of, spawn_fields
from .helper import Helper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tailrace._core import Value

__all__ = ["Child", "Exit", "LogFile", "Supervised", "SupervisorLost", "Supervisors", "open_supervisors"]

RING_BYTES = 4 * 1024 * 1024
"""How far a child may be ahead of the master: as much as a stream's window on the wire."""

APPEND_BYTES_MAX = 256 * 1024
"""What a supervisor takes of `append` at a time."""

LEAVE_S = 15.0
"""How long a supervisor may take to kill what is left, its own bound for that included, before it is killed itself."""

RECEIVE_BYTES = 64 * 1024
"""More than a supervisor ever says at once."""

NAME_BYTES_MAX = 200
"""Of a directory that is named for a command: file systems allow 255."""

RING = "journal.ring"
SOCKET = "control.sock"


class SupervisorLost(TailraceError):
    """A supervisor has died before its command was over. What its journal holds can still be read; nothing follows."""


@asynccontextmanager
async def open_supervisors(directory: Path, *, ring_bytes: int = RING_BYTES) -> AsyncIterator[Supervisors]:
    """Supervisors in `directory`, which is made if it is missing.

    What another daemon has left there is ended and removed. On exit, all of them are closed, with what they run.
    """
    directory = Path(os.path.abspath(directory))  # noqa: ASYNC240 - asks no disk
    await trio.to_thread.run_sync(_clear, directory)
    helper = Helper(ring_bytes)
    async with trio.open_nursery() as nursery:
        supervisors = Supervisors(directory, helper, nursery)
        try:
            await helper.open()
            yield supervisors
        finally:
            await supervisors.aclose()
            nursery.cancel_scope.cancel()


@final
class Supervisors:
    """All supervisors of a worker."""

    def __init__(self, directory: Path, helper: Helper, nursery: trio.Nursery) -> None:
        self.directory = directory
        self._helper = helper
        self._nursery = nursery
        self._open: set[Supervised] = set()

    @property
    def helper_pid(self) -> int | None:
        """The process of which all of them are forks."""
        return self._helper.pid

    async def start(self, command: str) -> Supervised:
        """Starts a supervisor for the command of this id. Not cancelled once begun; it takes some milliseconds.

        Raises:
            OSError: there is one already, or the system has no room for another.
        """
        directory = self.directory / _file_name(command)
        pid = await self._helper.start(directory)
        supervised = Supervised(directory, pid, _connect(directory), self._nursery)
        self._open.add(supervised)
        self._nursery.start_soon(self._listen, supervised)
        return supervised

    async def aclose(self) -> None:
        """Closes all supervisors, and kills what they run. Bounded, and not cancelled."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for supervised in list(self._open):
                    nursery.start_soon(supervised.aclose)
            await self._helper.aclose()

    async def _listen(self, supervised: Supervised) -> None:
        try:
            await supervised._listen()
        finally:
            self._open.discard(supervised)


@final
class Supervised:
    """One command's journal, and its children one after another."""

    def __init__(self, directory: Path, pid: int, connection: socket.socket, nursery: trio.Nursery) -> None:
        self.directory = directory
        self.pid = pid
        self.journal = Journal.map(str(directory / RING))
        self._socket = trio.socket.from_stdlib_socket(connection)
        self._nursery = nursery
        self._outbox = bytearray()
        self._count = 0
        self._asked: dict[int, _Answer] = {}
        self._grown = trio.Event()
        self._gone = trio.Event()

    # The children

    async def spawn(self, child: Child) -> Exit:
        """Runs one child to its end. Cancelled, it leaves the child running; `interrupt` ends it.

        After an interrupt no child is started: the exit says `interrupted`.
        """
        return exit_of(await self._ask("spawn", spawn_fields(child)))

    async def interrupt(self, why: str) -> None:
        """Begins to stop the child that runs, in the manner of its `Child`, with all processes that it has started.

        Returns at once, done also when it is cancelled; `spawn` returns when the child has ended. Harmless when
        nothing runs.
        """
        self._post({"op": "interrupt", "why": why})
        await trio.lowlevel.checkpoint()

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
            grown = self._grown
            if self.journal.wants_bell():
                await grown.wait()

    def released(self, offset: int) -> None:
        """The master has everything before `offset` safe: it may be forgotten here."""
        if self.journal.release(offset):
            self._post({"op": "room"})

    def spooling(self, on: bool) -> None:
        """The master is away: what the ring cannot hold goes to the disk. Or it is back: the child waits for it."""

    async def aclose(self) -> None:
        """Kills what is left, unless the journal has ended, and drops the directory. Bounded, and not cancelled."""
        with trio.CancelScope(shield=True):
            self._post({"op": "leave"})
            with trio.move_on_after(LEAVE_S):
                await self._gone.wait()
            if not self._gone.is_set():
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                await self._gone.wait()
            if self.directory.exists():
                await trio.to_thread.run_sync(lambda: shutil.rmtree(self.directory, ignore_errors=True))

    # The connection

    async def _ask(self, op: str, fields: Mapping[str, Value]) -> Mapping[str, Value]:
        await trio.lowlevel.checkpoint()
        self._count += 1
        number, answer = self._count, _Answer()
        self._asked[number] = answer
        try:
            self._post({"op": op, "id": number, **fields})
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
                del self._outbox[: os.write(self._socket.fileno(), self._outbox)]
        except BlockingIOError:
            pass
        except OSError:
            self._outbox.clear()  # it is gone, as `_listen` will notice

    async def _flush(self) -> None:
        while self._outbox and not self._gone.is_set():
            try:
                await trio.lowlevel.wait_writable(self._socket)
            except (OSError, trio.ClosedResourceError):
                break
            self._send()
        self._outbox.clear()

    async def _listen(self) -> None:
        """Takes what the supervisor says, until it goes."""
        received = bytearray()
        try:
            while data := await self._socket.recv(RECEIVE_BYTES):
                received += data
                for message in _messages(received):
                    self._hear(cast("Mapping[str, Value]", decode_value(message)))
        except OSError:
            pass
        finally:
            self._socket.close()
            self._gone.set()
            self._ring()
            for answer in self._asked.values():
                answer.there.set()

    def _hear(self, message: Mapping[str, Value]) -> None:
        if message["op"] == "grown":
            self._ring()
        elif answer := self._asked.get(cast(int, message.get("id", 0))):
            answer.message = message
            answer.there.set()

    def _ring(self) -> None:
        self._grown.set()
        self._grown = trio.Event()

    def _lost(self) -> SupervisorLost:
        return SupervisorLost(f"the supervisor {self.pid} of {self.directory.name} has died")


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


def _file_name(command: str) -> str:
    """A command's id as the name of a directory: readable, with nothing in it that leads elsewhere, not too long."""
    name = quote(command, safe=" +,:=@", errors="surrogatepass")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if 0 < len(name) <= NAME_BYTES_MAX:
        return name
    digest = hashlib.blake2b(command.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{name[: NAME_BYTES_MAX - 40]}~{digest}"


def _connect(directory: Path) -> socket.socket:
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
    return connection


def _clear(directory: Path) -> None:
    """Makes `directory`. Ends supervisors that have outlived their daemon, with what they run, and removes theirs."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    leftover = [entry for entry in directory.iterdir() if entry.is_dir() and not entry.is_symlink()]
    connections = []
    for entry in leftover:
        with suppress(OSError):
            connection = _connect(entry)
            connections.append(connection)
            message = encode_value({"op": "leave"})
            connection.sendall(len(message).to_bytes(4, "big") + message)
    for connection in connections:
        with suppress(OSError), connection:
            connection.settimeout(LEAVE_S)
            while connection.recv(RECEIVE_BYTES):
                pass
    for entry in leftover:
        shutil.rmtree(entry, ignore_errors=True)
