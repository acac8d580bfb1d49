"""A TCP proxy that does to connections what networks do to them.

    python -m tests.chaos.proxy TARGET [--listen HOST:PORT] [--do COMMAND]…

It prints `listening HOST:PORT`, then obeys the lines on its standard input, each answered by a line: `ok`, JSON, or
`error: …`. It ends with its input. `--do` says a line before anybody can connect. WAY is `up` (towards the target),
`down`, or `both`:

    cut rst|fin             every connection that there is, now
    cut rst|fin WAY N       the one that carries byte N of that direction, behind it; `+N` is counted from here
    pass WAY                as usual again. A connection of which something was swallowed is reset then
    stall WAY               nothing is read: it all comes later, as through a cable that is plugged in again
    swallow WAY             read and dropped, without a word: one way is a half-open connection, both a black hole
    delay WAY SECONDS       latency
    throttle WAY BYTES      per second and connection; 0 is as fast as it goes
    refuse on|off           new connections are reset
    target HOST:PORT        where new connections go
    count                   {"up": …, "down": …, "swallowed": …, "connections": …, "accepted": …, "cuts": …}

Of two connections that carry a direction at once, both count. In Python: `async with open_proxy(target) as proxy`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Literal, get_args

import trio

from .way import TRICKLE_S, Buffer, How, Mode, Way

CHUNK = 256 * 1024
# Without a delay hardly more than a chunk is under way; with one, what 300 MB/s bring in 50 ms.
AHEAD = 256 * 1024
DELAYED = 16 * 1024 * 1024
# What a throttled line that was kept from sending may catch up: a late wake-up is to cost it nothing.
CATCH_UP_S = 2 * TRICKLE_S
# How long a connection that ends by FIN waits for its two ends to close.
LINGER_S = 5.0

WayName = Literal["up", "down"]
Address = tuple[str, int]


class Proxy:
    """What `open_proxy` gives. Everything can be changed at any time."""

    def __init__(self, target: Address) -> None:
        self.target = target
        """Where new connections go."""
        self.refuse = False
        """New connections are reset."""
        self.ways: dict[WayName, Way] = {"up": Way(), "down": Way()}
        self.address: Address = ("", 0)
        """Where it listens."""
        self.accepted = 0
        self.cuts = 0
        self._pairs: set[Pair] = set()

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self, how: How = "rst") -> None:
        """End every connection that there is, now."""
        for pair in list(self._pairs):
            pair.cut(how)

    def cut_at(self, way: WayName, at: int, how: How = "rst") -> None:
        """End the connection that carries byte `at` of that direction, counted over all connections, behind it."""
        self.ways[way].cut(at, how)

    def change(
        self, *ways: WayName, mode: Mode | None = None, delay_s: float | None = None, bytes_per_s: float | None = None
    ) -> None:
        """Change directions; both, if none is named."""
        for name in ways or get_args(WayName):
            self.ways[name].change(mode=mode, delay_s=delay_s, bytes_per_s=bytes_per_s)
        for pair in [pair for pair in self._pairs if pair.lacks and not self._swallows()]:
            pair.cut("rst")

    def count(self) -> dict[str, int]:
        up, down = self.ways["up"], self.ways["down"]
        return {
            "up": up.bytes,
            "down": down.bytes,
            "swallowed": up.swallowed + down.swallowed,
            "connections": self.connections,
            "accepted": self.accepted,
            "cuts": self.cuts,
        }

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; every connection is then reset."""
        [listener] = await trio.open_tcp_listeners(self.address[1], host=self.address[0] or "127.0.0.1")
        self.address = listener.socket.getsockname()[:2]
        await trio.serve_listeners(self._serve_client, [listener], task_status=task_status)  # type: ignore[arg-type]

    async def _serve_client(self, stream: trio.SocketStream) -> None:
        self.accepted += 1
        pair = Pair(self, stream.socket)
        self._pairs.add(pair)
        try:
            await pair.run()
        finally:
            self._pairs.discard(pair)
            pair.close()

    def _swallows(self) -> bool:
        return any(way.mode == "swallow" for way in self.ways.values())


class Pair:
    """One connection: the two sockets, and what goes between them."""

    def __init__(self, proxy: Proxy, client: trio.socket.SocketType) -> None:
        self.lacks = False
        """Something of it was swallowed: it can never be whole again."""
        self._proxy = proxy
        self._client = client
        self._target: trio.socket.SocketType | None = None
        self._scope = trio.CancelScope()
        self._how: How = "rst"

    async def run(self) -> None:
        """Until both ends have ended, or it was cut."""
        proxy = self._proxy
        with self._scope, contextlib.suppress(OSError, trio.ClosedResourceError):
            if proxy.refuse:
                return
            if all(way.mode == "swallow" for way in proxy.ways.values()):
                # Nobody is behind a black hole, and it stays so when the network is back.
                await self._vanish()
            self._target = trio.socket.socket(socket.AF_INET6 if ":" in proxy.target[0] else socket.AF_INET)
            await self._target.connect(proxy.target)
            async with trio.open_nursery() as nursery:
                for way, source, sink in (
                    (proxy.ways["up"], self._client, self._target),
                    (proxy.ways["down"], self._target, self._client),
                ):
                    buffer = Buffer()
                    nursery.start_soon(self._guarded, self._read, way, source, buffer)
                    nursery.start_soon(self._guarded, self._write, way, buffer, sink)
            self._how = "fin"
        if self._how == "fin":
            with trio.move_on_after(LINGER_S):
                await self._say_goodbye()

    def cut(self, how: How) -> None:
        self._proxy.cuts += 1
        self._how = how
        self._scope.cancel()

    def close(self) -> None:
        """By RST, if anything of it is still open."""
        for end in (self._client, self._target):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    async def _guarded(self, task, *arguments) -> None:
        """An end that breaks breaks the other one, by RST."""
        try:
            await task(*arguments)
        except (OSError, trio.ClosedResourceError):
            self._scope.cancel()

    async def _read(self, way: Way, source: trio.socket.SocketType, buffer: Buffer) -> None:
        while True:
            await way.wait(lambda: way.mode != "stall")
            data = await source.recv(CHUNK)
            if way.mode == "swallow":
                # An end is not told of either.
                way.swallowed += len(data)
                self.lacks = True
                if not data:
                    await trio.sleep_forever()
                continue
            passed, cut = way.pass_on(data) if data else (b"", None)
            if passed:
                await buffer.put(trio.current_time() + way.delay_s, passed, DELAYED if way.delay_s else AHEAD)
            if cut is not None:
                await self._cut_behind(cut.how, way, buffer)
            if not data:
                await buffer.put(trio.current_time() + way.delay_s, b"", DELAYED)
                return

    async def _cut_behind(self, how: How, way: Way, buffer: Buffer) -> None:
        await buffer.put(0, b"", 1)  # as soon as what was before it is written
        self.cut(how)
        await trio.sleep_forever()

    async def _write(self, way: Way, buffer: Buffer, sink: trio.socket.SocketType) -> None:
        free_at = 0.0
        while True:
            due, data = await buffer.take()
            await trio.sleep_until(due)
            await way.wait(lambda: way.mode != "stall")
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            view = memoryview(data)
            while view:
                sent = await sink.send(view[: way.piece_bytes] if way.bytes_per_s else view)
                view = view[sent:]
                if way.bytes_per_s:
                    free_at = max(free_at, due, trio.current_time() - CATCH_UP_S) + sent / way.bytes_per_s
                    await trio.sleep_until(free_at)
            buffer.taken(data)

    async def _vanish(self) -> None:
        self.lacks = True
        while data := await self._client.recv(CHUNK):
            self._proxy.ways["up"].swallowed += len(data)
        await trio.sleep_forever()

    async def _say_goodbye(self) -> None:
        """FIN to both, and then what they still say is heard and dropped: a close with unread bytes would be a RST."""
        async with trio.open_nursery() as nursery:
            for end in (self._client, self._target):
                if end is not None:
                    nursery.start_soon(_end, end)


async def _end(end: trio.socket.SocketType) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_WR)
        while await end.recv(CHUNK):
            pass
        end.close()


@asynccontextmanager
async def open_proxy(target: Address, listen: Address = ("127.0.0.1", 0)) -> AsyncIterator[Proxy]:
    """A proxy for the block; behind it every connection is reset."""
    proxy = Proxy(target)
    proxy.address = listen
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()


# ------------------------------------------------------------ the lines


def obey(proxy: Proxy, line: str) -> str:
    """Do what a line says; the answer.

    Raises:
        ValueError: it says nothing that can be done.
    """
    match line.split():
        case ["cut", ("rst" | "fin") as how]:
            proxy.cut(how)
        case ["cut", ("rst" | "fin") as how, way, at]:
            for name in _ways(way):
                proxy.cut_at(name, int(at) + (proxy.ways[name].bytes if at.startswith("+") else 0), how)
        case [("pass" | "stall" | "swallow") as mode, way]:
            proxy.change(*_ways(way), mode=mode)
        case ["delay", way, seconds]:
            proxy.change(*_ways(way), delay_s=float(seconds))
        case ["throttle", way, rate]:
            proxy.change(*_ways(way), bytes_per_s=float(rate))
        case ["refuse", ("on" | "off") as refuse]:
            proxy.refuse = refuse == "on"
        case ["target", address]:
            proxy.target = _address(address)
        case ["count"]:
            return json.dumps(proxy.count())
        case _:
            raise ValueError(f"there is no {line!r}")
    return "ok"


def _ways(name: str) -> tuple[WayName, ...]:
    match name:
        case "up" | "down":
            return (name,)
        case "both":
            return ("up", "down")
        case _:
            raise ValueError(f"a way is up, down or both, not {name!r}")


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def main(arguments: list[str]) -> None:
    """The program."""
    target, *rest = arguments
    options = list(_options(rest))
    listen = next((_address(value) for name, value in options if name == "--listen"), ("127.0.0.1", 0))
    async with open_proxy(_address(target), listen) as proxy:
        for name, value in options:
            if name == "--do":
                obey(proxy, value)
        print(f"listening {proxy.address[0]}:{proxy.address[1]}", flush=True)
        # Not a thread, which would keep the process from ending.
        async for line in _lines():
            try:
                print(obey(proxy, line), flush=True)
            except ValueError as error:
                print(f"error: {error}", flush=True)


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    if len(arguments) % 2 or not set(arguments[::2]) <= {"--listen", "--do"}:
        raise SystemExit(__doc__)
    return zip(arguments[::2], arguments[1::2], strict=True)


async def _lines() -> AsyncIterator[str]:
    buffer = b""
    async with trio.lowlevel.FdStream(0) as stream:
        async for data in stream:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                yield line.decode()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    trio.run(main, sys.argv[1:])
