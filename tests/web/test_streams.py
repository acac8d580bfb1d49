"""Answers of unknown length: whole, or visibly broken."""

from __future__ import annotations

import trio
import trio.testing

from tailrace.errors import TailraceError
from tailrace.web.streams import ByteStream


class Exchange:
    """What an ASGI server is to an answer."""

    def __init__(self) -> None:
        self.sent = []
        self.gone = trio.Event()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    @property
    def body(self):
        return b"".join(bytes(message.get("body", b"")) for message in self.sent)

    @property
    def whole(self):
        return self.sent[-1].get("more_body") is False


async def test_pieces_go_out_as_they_come_and_the_end_is_said():
    async def pieces():
        yield b"one"
        yield memoryview(b"two")

    exchange = Exchange()
    await ByteStream(pieces(), media_type="x/y", first=b"zero")({}, exchange.receive, exchange.send)
    assert exchange.body == b"zeroonetwo"
    assert exchange.whole
    assert (b"content-type", b"x/y") in exchange.sent[0]["headers"]


async def test_a_failure_is_not_taken_for_the_end():
    async def pieces():
        yield b"one"
        raise TailraceError("gone")

    exchange = Exchange()
    await ByteStream(pieces(), media_type="x/y")({}, exchange.receive, exchange.send)
    assert exchange.body == b"one"
    assert not exchange.whole


async def test_a_client_that_goes_away_ends_the_generator():
    closed = trio.Event()

    async def pieces():
        try:
            yield b"one"
            await trio.sleep_forever()
        finally:
            closed.set()

    exchange = Exchange()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ByteStream(pieces(), media_type="x/y"), {}, exchange.receive, exchange.send)
        await trio.testing.wait_all_tasks_blocked()
        assert exchange.body == b"one"
        exchange.gone.set()
        with trio.fail_after(1):
            await closed.wait()
