"""A virtual network: transports that delay, split, stall, fall silent and break, as the seed says.

A connection is two links, one for each direction. What breaks it is decided when it is made: after so many bytes of one
direction, in one of the ways in which networks do that. Bytes are never changed and never overtake each other: that is
what TCP promises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

import attrs
import trio

Fault = Literal["rst", "fin", "hole", "deaf", "mute"]
"""`rst`: both ends break at once, and what is under way is gone. `fin`: both ends see the end, behind what was sent.
`hole`: both ways silent, and nobody is told. `deaf`, `mute`: only what comes to the worker, or from it."""

FAULTS: tuple[Fault, ...] = ("rst", "rst", "rst", "fin", "hole", "deaf", "mute")
# What may be under way in a direction: the kernel's buffers. Small, so that writers are blocked now and then.
WINDOW_BYTES = 16 * 1024


@attrs.frozen(kw_only=True)
class Weather:
    """How a connection will be."""

    fault: Fault | None = None
    """None: it lasts."""
    after_bytes: int = 0
    """Of one direction: the fault comes behind this byte."""
    counts_up: bool = True
    """Of which direction: up is from the worker."""
    latency_s: float = 0.0
    piece_bytes: int = 1 << 20
    """At most this is received at once."""


class Network:
    """Who listens, and which connections there are."""

    def __init__(self, weather: Callable[[], Weather]) -> None:
        """`weather` is asked for each connection."""
        self._weather = weather
        self._accept: Callable[[Wire], None] | None = None
        self.connections: list[Connection] = []

    def break_all(self) -> None:
        """No connection that there is goes on: a machine, or a process with all of them, is gone."""
        for connection in self.connections:
            connection.break_now()
        self.connections.clear()

    def listen(self, accept: Callable[[Wire], None] | None) -> None:
        """Have `accept` called with the far end of every connection; None: nobody is there."""
        self._accept = accept

    async def connect(self) -> Wire:
        """The worker's end.

        Raises:
            ConnectionRefusedError: nobody listens.
        """
        await trio.lowlevel.checkpoint()
        if self._accept is None:
            raise ConnectionRefusedError("nobody listens")
        weather = self._weather()
        connection = Connection(weather)
        self.connections.append(connection)
        worker_end, master_end = Wire(connection, 0), Wire(connection, 1)
        self._accept(master_end)
        return worker_end


class Connection:
    """Two links, and their common fate."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self.links = (Link(weather), Link(weather))  # up, down
        self._counted = 0

    def break_now(self) -> None:
        """As a machine that loses its power, or a cable that is pulled: nothing more, in either direction."""
        for link in self.links:
            link.break_off()

    def admit(self, link: Link, data: memoryview) -> memoryview:
        """What of `data` goes through before the fault comes, which comes then."""
        weather = self._weather
        if weather.fault is None or (link is self.links[0]) is not weather.counts_up:
            return data
        admitted = data[: max(weather.after_bytes - self._counted, 0)]
        self._counted += len(admitted)
        return admitted

    @property
    def is_due(self) -> bool:
        return self._weather.fault is not None and self._counted >= self._weather.after_bytes

    def fail(self) -> None:
        """The fault comes."""
        fault, self._weather = self._weather.fault, attrs.evolve(self._weather, fault=None)
        up, down = self.links
        match fault:
            case "rst":
                self.break_now()
            case "fin":
                up.end()
                down.end()
            case "hole":
                up.silence()
                down.silence()
            case "mute":
                up.silence()
            case "deaf":
                down.silence()
            case None:
                pass


class Link:
    """One direction."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._pieces: deque[tuple[float, memoryview]] = deque()
        self._bytes = 0
        self._silent = self._deserted = False
        self.ended = self.broken = False
        self._changed = trio.Event()

    @property
    def has_room(self) -> bool:
        return self._bytes < WINDOW_BYTES

    def put(self, data: memoryview) -> None:
        self._bytes += len(data)
        if not self._silent and data:
            self._pieces.append((trio.current_time() + self._weather.latency_s, data))
            self.wake()

    def end(self) -> None:
        """Nothing follows."""
        if not self._silent:
            self.ended = True
            self.wake()

    def silence(self) -> None:
        """Nothing arrives any more, and nobody is told. The kernel takes what is written until its buffers are full."""
        self._silent = True
        self._pieces.clear()

    def break_off(self) -> None:
        """Both ends know it."""
        self.broken = True
        self._pieces.clear()
        self.wake()

    def desert(self) -> None:
        """Who received from it has closed: who sends hears of that, unless nothing is heard any more."""
        self._deserted = True
        if self._silent:
            self.wake()
        else:
            self.break_off()

    async def take(self, max_bytes: int) -> bytes | None:
        """What has arrived; `b""` is the end, None a break."""
        while not (self.broken or self._deserted):
            if self._pieces:
                due, data = self._pieces[0]
                if due <= trio.current_time():
                    return self._cut(data, max_bytes)
                with trio.move_on_at(due):
                    await self._changed.wait()
            elif self.ended:
                return b""
            else:
                await self._changed.wait()
        return None

    def _cut(self, data: memoryview, max_bytes: int) -> bytes:
        size = min(max_bytes, self._weather.piece_bytes, len(data))
        if size == len(data):
            self._pieces.popleft()
        else:
            self._pieces[0] = self._pieces[0][0], data[size:]
        self._bytes -= size
        self.wake()
        return bytes(data[:size])

    async def wait_changed(self) -> None:
        await self._changed.wait()

    def wake(self) -> None:
        """Have who waits look again."""
        self._changed.set()
        self._changed = trio.Event()


class Wire(trio.abc.Stream):
    """One end of a connection."""

    def __init__(self, connection: Connection, side: int) -> None:
        self.connection = connection
        self._out, self._in = connection.links[side], connection.links[1 - side]
        self._closed = False
        self._closing = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(bytes(data))
        while rest:
            self._check()
            while not self._out.has_room and not self._closed and not self._out.broken:
                await self._out.wait_changed()
            self._check()
            piece = self.connection.admit(self._out, rest[:WINDOW_BYTES])
            rest = rest[len(piece) :]
            self._out.put(piece)
            if self.connection.is_due:
                # The rest finds the connection as it is then.
                self.connection.fail()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self._check_open()
        data = await self._in.take(max_bytes or 1 << 20)
        self._check_open()
        if data is None:
            raise trio.BrokenResourceError("connection reset")
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._out.end()
            self._in.desert()
            self._out.wake()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError

    def _check(self) -> None:
        self._check_open()
        if self._out.broken or self._out.ended:
            raise trio.BrokenResourceError("broken pipe")
