"""Whatever bytes come before and during a login: an event, or `RemoteProtocolError` for ever after; and nobody is let
in who has not said the secret.

What comes is a real conversation that was tampered with: cut off, with parts that were dropped, repeated, swapped,
turned over, or put in; in pieces of any size.
"""

from __future__ import annotations

import contextlib
import re

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.utils import accept_key

from tailrace.errors import LocalProtocolError, RemoteProtocolError, TailraceError
from tailrace.link.dial import dial_stream
from tailrace.link.listener import Listener
from tailrace.messages import Called, GetWorkerInfo, Held, LoggedIn, LoginAsked
from tests.dialects.conformance import Pair
from tests.link.farm import Handler, Master

from .msgpack import pair as msgpack
from .pb import test_dialect as pb

NONCE = bytes(range(32))
SENT_BYTES_MAX = 1 << 20

MAKE = {
    "pb": {
        "master": lambda: pb.make("master", nonce=NONCE),
        "worker": lambda: pb.make("worker", nonce=NONCE, name="w1", secret=b"pass"),
    },
    "msgpack": {
        "master": msgpack.make_master,
        "worker": lambda: msgpack.make_worker(secret=b"pass"),
    },
}
WIRES_AND_ROLES = [(wire, role) for wire in MAKE for role in ("master", "worker")]


class Tapped(Pair):
    """Keeps what goes over the wire."""

    def __init__(self, master, worker):
        super().__init__(master, worker, b"pass", 0)
        self.said = {"master": b"", "worker": b""}

    def _carry(self, source, target):
        data = source.data_to_send(1 << 20)
        target.receive_data(data)
        self.said["master" if source is self.master else "worker"] += data
        self._drain(target)
        self._drain(source)
        return bool(data)


def conversation(wire):
    """What each side says in a login and in the first call after it."""
    pair = Tapped(MAKE[wire]["master"](), MAKE[wire]["worker"]())
    pair.log_in()
    pair.master.call(GetWorkerInfo())
    for event in pair.events_of(pair.worker):
        if isinstance(event, Called):
            pair.worker.reply(event.call, dict(msgpack.INFO))
    pair.turn()
    return pair.said


SAID = {wire: conversation(wire) for wire in MAKE}
_ACCEPT = re.compile(rb"(Sec-WebSocket-Accept: )[^\r]+")
_KEY = re.compile(rb"Sec-WebSocket-Key: ([^\r]+)")


@attrs.frozen
class Edit:
    """What is done to the bytes from `start` on, a part of 1000 of their whole length."""

    kind: str
    start: int
    length: int
    data: bytes

    def apply(self, said):
        start = len(said) * self.start // 1000
        part, rest = said[start : start + self.length], said[start + self.length :]
        match self.kind:
            case "cut":
                return said[:start]
            case "drop":
                return said[:start] + rest
            case "repeat":
                return said[:start] + part + part + rest
            case "swap":
                return said[:start] + rest[: self.length] + part + rest[self.length :]
            case "turn over":
                return said[:start] + bytes(byte ^ 0x81 for byte in part) + rest
            case _:
                return said[:start] + self.data + said[start:]


edits = st.builds(
    Edit,
    st.sampled_from(["cut", "drop", "repeat", "swap", "turn over", "put in"]),
    st.integers(0, 1000),
    st.integers(1, 40),
    st.binary(max_size=40) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"\x82", b"\x80", b"\x01\x87", bytes(8)]),
)
tampered = st.lists(edits, max_size=4)


def tamper(said, edits):
    for edit in edits:
        said = edit.apply(said)
    return said


def addressed(said, hello):
    """What a master of msgpack said, as an answer to another worker's key."""
    key = _KEY.search(hello)
    if key is None:
        return said
    return _ACCEPT.sub(lambda found: found[1] + accept_key(key[1].decode()).encode(), said)


class Driver:
    """Does with one end what `link` does."""

    def __init__(self, end, role, secret):
        self.end, self.role, self.secret = end, role, secret
        self.events = []
        self.errors = set()
        self.admitted = False
        self.sent = 0

    def feed(self, data):
        self.end.receive_data(data)
        self.turn()

    def turn(self):
        try:
            while (event := self.end.next_event()) is not None:
                self.events.append(event)
                self.on_event(event)
        except RemoteProtocolError as error:
            self.errors.add(str(error))
        # It is for ever, and it is always the same.
        assert len(self.errors) <= 1
        self.sent += len(self.end.data_to_send(1 << 20))
        assert self.sent < SENT_BYTES_MAX

    def on_event(self, event):
        match event:
            case LoginAsked():
                assert self.role == "master"
                self.admitted = self.end.admit(self.secret)
            case LoggedIn() if self.role == "master":
                assert self.admitted
                self.end.call(GetWorkerInfo())
            case LoggedIn():
                self.end.call(Held(()))
            case Called(number, GetWorkerInfo()):
                self.end.reply(number, {"basedir": "/w"})
            case Called(number, Held()):
                self.end.reply(number, None)
            case Called(number, _):
                self.end.fail(number, "OSError", "no")


def pieces(said, size):
    """As it arrives; no worker speaks on before its handshake was answered."""
    head, end, rest = said.partition(b"\r\n\r\n")
    for part in (head + end, rest):
        for start in range(0, len(part), size):
            yield part[start : start + size]


def drive(wire, role, said, size, secret=b"pass"):
    end = MAKE[wire][role]()
    driver = Driver(end, role, secret)
    hello = end.data_to_send(1 << 20)
    said = addressed(said, hello) if role == "worker" else said
    for piece in pieces(said, size):
        driver.feed(piece)
    end.receive_eof()
    driver.turn()
    return driver


def other(role):
    return {"master": "worker", "worker": "master"}[role]


@pytest.mark.parametrize(("wire", "role"), WIRES_AND_ROLES)
def test_what_was_not_tampered_with_logs_in(wire, role):
    """So the rest of these tests gets far."""
    for size in (1, 7, 1 << 20):
        driver = drive(wire, role, SAID[wire][other(role)], size)
        assert not driver.errors
        assert any(isinstance(event, LoggedIn) for event in driver.events)


@pytest.mark.parametrize(("wire", "role"), WIRES_AND_ROLES)
@given(tampered, st.sampled_from([1, 3, 50, 1 << 20]))
@settings(max_examples=300)
def test_a_login_that_was_tampered_with(wire, role, edits, size):
    drive(wire, role, tamper(SAID[wire][other(role)], edits), size)


@pytest.mark.parametrize(("wire", "role"), WIRES_AND_ROLES)
@given(st.binary(max_size=300), st.sampled_from([1, 50]))
def test_no_login_at_all(wire, role, data, size):
    driver = drive(wire, role, data, size)
    assert not any(isinstance(event, LoggedIn | LoginAsked) for event in driver.events)


@pytest.mark.parametrize("wire", list(MAKE))
@given(tampered, st.sampled_from([b"", b"Pass", b"another"]))
def test_nobody_comes_in_without_the_secret(wire, edits, secret):
    driver = drive(wire, "master", tamper(SAID[wire]["worker"], edits), 50, secret)
    assert not any(isinstance(event, LoggedIn) for event in driver.events)


@pytest.mark.parametrize("wire", list(MAKE))
@given(st.integers(0, 1000))
def test_a_login_that_breaks_off_can_still_be_closed(wire, part):
    """Whatever the state: nobody is let in any more."""
    said = SAID[wire]["worker"]
    end = MAKE[wire]["master"]()
    driver = Driver(end, "master", b"pass")
    for piece in pieces(said[: len(said) * part // 1000], 50):
        driver.feed(piece)
    assert not driver.errors
    end.close("bye", "good night")
    driver.turn()
    before = len(driver.events)
    with contextlib.suppress(LocalProtocolError):
        end.admit(b"pass")
    driver.feed(said)
    assert len(driver.events) == before
    assert end.eof_to_send


# ---------------------------------------------------------------- the same through the link


async def serve(wire, said, size):
    """A listener that hears this: it ends by itself, and raises nothing."""
    master = Master()
    listener = Listener(master, f"{wire}://127.0.0.1:0")
    listener.updateRegistration("w1", "pass")
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve_stream, ours)
        for piece in pieces(said, size):
            await trio.testing.wait_all_tasks_blocked()
            try:
                await theirs.send_all(piece)
            except trio.BrokenResourceError:
                break
    statistics = listener.statistics()
    assert (statistics.attached, statistics.handshakes) == (0, 0)
    assert all(conn.state == "lost" for conn in master.connections)


async def dial(wire, said, size):
    """A worker that hears this: what it raises is one of ours."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def speak():
        hello = await theirs.receive_some() if wire == "msgpack" else b""
        answer = addressed(said, hello)
        for piece in pieces(answer, size):
            await trio.testing.wait_all_tasks_blocked()
            try:
                await theirs.send_all(piece)
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        handler = Handler(nursery)
        try:
            async with dial_stream(ours, wire=wire, name="w1", secret="pass", instance="i1", handler=handler) as worker:
                assert isinstance(await worker.wait_closed(), TailraceError)
        except TailraceError:
            pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("wire", "role"), WIRES_AND_ROLES)
@given(tampered, st.sampled_from([20, 1 << 20]))
@settings(max_examples=40)
def test_through_the_link(wire, role, edits, size):
    said = tamper(SAID[wire][other(role)], edits)
    trio.run(
        serve if role == "master" else dial,
        wire,
        said,
        size,
        clock=trio.testing.MockClock(autojump_threshold=0),
    )
