"""The proxy does what it says, to the byte."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest
import trio

from .process import ProxyProcess
from .proxy import obey, open_proxy

MIB = 1024 * 1024
SOON_S = 20


class Server:
    """Takes connections, and gives them to the test."""

    def __init__(self) -> None:
        self.send, self.accepted = trio.open_memory_channel[trio.SocketStream](100)
        self.clients: list[trio.SocketStream] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        await self.send.send(stream)
        await trio.sleep_forever()

    async def connect(self, address: tuple[str, int]) -> trio.SocketStream:
        self.clients.append(await trio.open_tcp_stream(*address))
        return self.clients[-1]

    async def accept(self) -> trio.SocketStream:
        with trio.fail_after(SOON_S):
            return await self.accepted.receive()


@asynccontextmanager
async def network():
    """A server, and a proxy before it."""
    async with serving() as (server, address), open_proxy(address) as proxy:
        yield server, proxy


@asynccontextmanager
async def serving():
    server = Server()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        try:
            yield server, listener.socket.getsockname()[:2]
        finally:
            for client in server.clients:
                await trio.aclose_forcefully(client)
            nursery.cancel_scope.cancel()
    await listener.aclose()


async def connected(server, proxy):
    return await server.connect(proxy.address), await server.accept()


async def read(stream, count):
    data = b""
    with trio.fail_after(SOON_S):
        while len(data) < count:
            piece = await stream.receive_some(count - len(data))
            assert piece, f"ended after {len(data)} bytes"
            data += piece
    return data


async def rest(stream):
    """What comes until the end, and how it ends."""
    data = b""
    with trio.fail_after(SOON_S):
        while True:
            try:
                piece = await stream.receive_some()
            except trio.BrokenResourceError:
                return data, "rst"
            if not piece:
                return data, "fin"
            data += piece


async def test_bytes_go_both_ways_and_are_counted():
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        await client.send_all(b"there")
        assert await read(far, 5) == b"there"
        await far.send_all(b"and back")
        assert await read(client, 8) == b"and back"
        assert proxy.count() | {"up": 5, "down": 8, "connections": 1, "accepted": 1, "cuts": 0} == proxy.count()


async def test_an_end_of_one_direction_leaves_the_other():
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        await client.send_all(b"all of it")
        await client.send_eof()
        assert await rest(far) == (b"all of it", "fin")
        await far.send_all(b"an answer")
        await far.send_eof()
        assert await rest(client) == (b"an answer", "fin")


async def test_a_reset_comes_through():
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        await far.send_all(b"unread")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await client.aclose()  # with bytes that nobody read: a RST
        assert (await rest(far))[1] == "rst"


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_cut_comes_behind_its_byte_and_ends_both_sides(way, how):
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        source, sink = (client, far) if way == "up" else (far, client)
        proxy.cut_at(way, 100_000, how)
        await source.send_all(b"x" * 99_999)
        assert len(await read(sink, 99_999)) == 99_999
        await source.send_all(b"yz")
        data, end = await rest(sink)
        assert (data, end) == (b"y", "fin") if how == "fin" else end == "rst" and data in (b"", b"y")
        assert (await rest(source))[1] == how
        assert proxy.count()["cuts"] == 1


async def test_cuts_are_counted_over_all_connections():
    async with network() as (server, proxy):
        for at in (10, 25):
            proxy.cut_at("up", at, "fin")
        lengths = []
        for _ in range(3):
            client, far = await connected(server, proxy)
            await client.send_all(b"x" * 20)
            await client.send_eof()
            lengths.append(len((await rest(far))[0]))
        assert lengths == [10, 15, 20]


async def test_a_cut_now_takes_every_connection():
    async with network() as (server, proxy):
        pairs = [await connected(server, proxy) for _ in range(3)]
        proxy.cut("rst")
        for client, far in pairs:
            assert (await rest(client), await rest(far)) == ((b"", "rst"), (b"", "rst"))


async def test_what_was_stalled_comes_later():
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        proxy.change(mode="stall")
        await client.send_all(b"late")
        with trio.move_on_after(0.1):
            assert not await far.receive_some()
        assert proxy.count()["down"] == 0
        proxy.change(mode="pass")
        assert await read(far, 4) == b"late"


async def test_a_half_open_connection_hears_nothing_and_is_reset_when_the_network_is_back():
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        proxy.change("up", mode="swallow")
        await client.send_all(b"lost")
        await far.send_all(b"heard")
        assert await read(client, 5) == b"heard"
        with trio.move_on_after(0.1) as silence:
            await far.receive_some()
        assert silence.cancelled_caught
        proxy.change(mode="pass")
        assert (await rest(far), await rest(client)) == ((b"", "rst"), (b"", "rst"))


async def test_a_black_hole_accepts_and_says_nothing():
    async with network() as (server, proxy):
        proxy.change(mode="swallow")
        client = await server.connect(proxy.address)
        await client.send_all(b"is anybody there?")
        with trio.move_on_after(0.1) as silence:
            await client.receive_some()
        assert silence.cancelled_caught
        assert proxy.count()["swallowed"] == 17
        proxy.change(mode="pass")
        assert (await rest(client))[1] == "rst"
        client, far = await connected(server, proxy)
        await client.send_all(b"now")
        assert await read(far, 3) == b"now"


async def test_a_delay_is_latency_and_no_throttle():
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        proxy.change("up", delay_s=0.2)
        begun = time.monotonic()
        for _ in range(10):
            await client.send_all(b"x" * 10)
            await trio.sleep(0.01)
        assert await read(far, 100) == b"x" * 100
        assert 0.29 < time.monotonic() - begun < 1.5


async def test_a_throttle_lets_so_much_pass():
    async with network() as (server, proxy):
        client, far = await connected(server, proxy)
        proxy.change("up", bytes_per_s=100_000)
        begun = time.monotonic()
        await client.send_all(b"x" * 30_000)
        await read(far, 30_000)
        assert time.monotonic() - begun > 0.2


async def test_who_is_refused_is_reset_and_so_is_who_wants_what_is_not_there():
    async with network() as (server, proxy):
        proxy.refuse = True
        assert (await rest(await server.connect(proxy.address)))[1] == "rst"
        proxy.refuse = False
        proxy.target = ("127.0.0.1", 1)
        assert (await rest(await server.connect(proxy.address)))[1] == "rst"


async def test_what_cannot_be_done_is_said():
    async with network() as (_server, proxy):
        for line in ("", "cut", "cut rst sideways 1", "delay up soon", "stall", "target nowhere"):
            with pytest.raises(ValueError):
                obey(proxy, line)


async def test_it_is_a_program_that_is_fast_enough_to_be_no_bottleneck():
    async with serving() as (server, (_, port)), trio.open_nursery() as nursery:
        with ProxyProcess(f"127.0.0.1:{port}", f"cut fin up {256 * MIB}") as proxy:
            host, _, port = proxy.address.rpartition(":")
            client, far = await server.connect((host, int(port))), await server.accept()
            begun = time.monotonic()
            nursery.start_soon(send_for_ever, client)
            count = 0
            while data := await far.receive_some(MIB):
                count += len(data)
            assert count == 256 * MIB
            # A busy machine may be slow; several hundred is usual.
            assert count / (time.monotonic() - begun) > 20e6
            assert proxy.count()["up"] == count
            assert proxy.do("throttle both 1") == "ok"
            with pytest.raises(ValueError):
                proxy.do("nonsense")
        nursery.cancel_scope.cancel()


async def send_for_ever(stream):
    block = bytes(MIB)
    try:
        while True:
            await stream.send_all(block)
    except trio.BrokenResourceError:
        pass
