"""Who is attached, on every wire, whatever several connections of one name do, and whatever their master does.

Never two are attached, never is one connected and not attached, every loser is told, and who is attached works.
The real `Listener` and the real dial, over streams in memory, with a clock that jumps.
"""

from __future__ import annotations

import contextlib
import re
from typing import Literal

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tailrace.errors import ConnectionClosed, ConnectionLost, LoginRefused, TailraceError
from tailrace.limits import Limits
from tailrace.link.dial import dial_stream
from tailrace.link.listener import Listener

from .farm import SECRET, Handler, Recorder

LIMITS = Limits(ping_interval_s=4, ping_timeout_s=12, handshake_timeout_s=10, duplicate_timeout_s=5, resume_grace_s=20)
WIRES = ["tailrace", "pb", "msgpack"]
LONG_S = 100
"""Longer than all that can be waited for."""

SLOWLY_S = {"slowly": 7, "late": 40}

Verdict = Literal["takes", "refuses", "raises", "takes it slowly", "refuses it slowly", "hangs up", "takes it late"]
VERDICTS: tuple[Verdict, ...] = (
    "takes", "refuses", "raises", "takes it slowly", "refuses it slowly", "hangs up", "takes it late",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Visit:
    """One connection: when it comes, what becomes of it, and what the master says to it."""

    at: float = 0
    instance: str = "i1"
    mute_after: float | None = None
    """From then on nothing that the worker says arrives."""
    breaks_after: float | None = None
    verdict: Verdict = "takes"


delays = st.sampled_from([0, 0.01, 1, 4, 6, 11, 30])
visits = st.builds(
    Visit,
    at=delays,
    instance=st.sampled_from(["i1", "i2"]),
    mute_after=st.none() | delays,
    breaks_after=st.none() | delays,
    verdict=st.sampled_from(VERDICTS),
)


async def list_nothing(proxy, args, interrupted):
    await proxy.callRemote("update", {"files": [], "rc": 0})
    await proxy.callRemote("complete")


async def do_it(proxy, args, interrupted):
    await proxy.callRemote("update", {"rc": 0})
    await proxy.callRemote("complete")


class World:
    """A master, its listener, and the workers that have come."""

    masterId = "the-master"

    def __init__(self, wire, nursery):
        self.wire = wire
        self.nursery = nursery
        self.listener = Listener(self, f"{wire}://127.0.0.1:0", limits=LIMITS)
        self.listener.updateRegistration("w1", SECRET)
        self.connections = []
        self.verdicts = {}
        self.inside = {}
        self.told = {}
        self.handlers = {}

    async def newConnection(self, conn, workerName):
        """As a master does; and nobody else is attached now."""
        assert conn.state == "attached"
        assert all(other.state == "lost" for other in self.connections)
        self.connections.append(conn)
        verdict = self.verdicts[conn.peer]
        await trio.sleep(SLOWLY_S.get(verdict.split()[-1], 0))
        if verdict == "hangs up":
            conn.loseConnection()
        if verdict == "raises":
            raise KeyError("oops")
        return verdict.startswith("takes")

    def attached(self):
        return [conn for conn in self.connections if conn.state == "attached"]

    async def visit(self, number, visit):
        await trio.sleep(visit.at)
        ours, theirs = Named(number), Named(number)
        ours.join(theirs)
        self.verdicts[str(ours)] = visit.verdict
        mute_at = LONG_S * 9 if visit.mute_after is None else trio.current_time() + visit.mute_after
        theirs.mute_at = mute_at
        self.nursery.start_soon(self.listener.serve_stream, ours)
        with contextlib.suppress(trio.ClosedResourceError):
            async with trio.open_nursery() as nursery:
                if visit.breaks_after is not None:
                    nursery.start_soon(self.break_after, visit.breaks_after, theirs)
                self.told[number] = await self.attach(number, visit, theirs)
                nursery.cancel_scope.cancel()

    async def break_after(self, seconds, stream):
        await trio.sleep(seconds)
        await trio.aclose_forcefully(stream)

    async def attach(self, number, visit, stream):
        """Why it is over."""
        handler = self.handlers[number] = Handler(self.nursery, listdir=list_nothing, mkdir=do_it)
        try:
            async with dial_stream(
                stream,
                wire=self.wire,
                name="w1",
                secret=SECRET,
                instance=visit.instance,
                handler=handler,
                limits=LIMITS,
            ) as connection:
                self.inside[number] = connection
                assert len(self.attached()) <= 1
                return await connection.wait_closed()
        except TailraceError as error:
            return error
        finally:
            self.inside.pop(number, None)

    def heard(self, number):
        """Why, in the one word that both sides know; Perspective Broker has no goodbye, but the worker's log."""
        said = [call[1] for call in self.handlers[number].calls if call[0] == "print"]
        found = re.search(r"the master closes \((\w+)\)", "".join(said))
        return found[1] if found else getattr(self.told[number], "reason", "")

    async def check(self):
        """What holds when all has been waited for."""
        [*working] = self.attached()
        assert len(working) <= 1
        # Who is attached knows it, and nobody else is there.
        assert len(self.inside) == len(working) == self.listener.statistics().attached
        assert self.listener.statistics().handshakes == 0
        for conn in working:
            await conn.remoteSetBuilderList([("b", "dir")])
            impl = Recorder()
            await conn.remoteStartCommand(impl, "b", f"c{len(self.told)}", "hello", {})
            assert await impl.wait_done() is None
            assert impl.raw == b"hello\n"


class Named(trio.abc.HalfCloseableStream):
    """One end of a wire in memory, which may become mute."""

    def __init__(self, number):
        self.number = number
        self.mute_at = float("inf")

    def join(self, other):
        self.inner, other.inner = trio.testing.memory_stream_pair()

    def __str__(self):
        return f"visitor {self.number}"

    async def send_all(self, data):
        if trio.current_time() < self.mute_at:
            await self.inner.send_all(data)
        else:
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self):
        await self.inner.wait_send_all_might_not_block()

    async def send_eof(self):
        await self.inner.send_eof()

    async def receive_some(self, max_bytes=None):
        return await self.inner.receive_some(max_bytes)

    async def aclose(self):
        await self.inner.aclose()


async def play(wire, visits):
    """Have them all come; what each was told, and what then happens to one who comes last and does all right."""
    async with trio.open_nursery() as nursery:
        world = World(wire, nursery)
        for number, visit in enumerate(visits):
            nursery.start_soon(world.visit, number, visit)
        await trio.sleep(LONG_S)
        await world.check()
        # Whoever is not there any more was told why.
        gone = set(range(len(visits))) - set(world.inside)
        assert gone == set(world.told)
        told = {number: (why, world.heard(number)) for number, why in world.told.items()}
        somebody = bool(world.inside)
        nursery.start_soon(world.visit, "last", Visit(instance="another"))
        await trio.sleep(LONG_S)
        await world.check()
        assert bool(world.inside)
        assert ("last" in world.inside) is not somebody
        if somebody:
            assert isinstance(world.told["last"], LoginRefused)
            assert world.told["last"].reason == "duplicate"
        nursery.cancel_scope.cancel()
    return told


def run(wire, visits):
    return trio.run(play, wire, visits, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.fixture(autouse=True)
def names(monkeypatch):
    monkeypatch.setattr("tailrace.link.listener.peer_of", str)


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=50)
@given(st.lists(visits, min_size=2, max_size=3))
@example([Visit(mute_after=0.01), Visit(at=1, instance="i2"), Visit(at=1, instance="i2")])
@example([Visit(verdict="takes it slowly"), Visit(at=1, instance="i2"), Visit(at=6)])
@example([Visit(breaks_after=1), Visit(at=1, instance="i2"), Visit(at=1)])
def test_whatever_they_do(wire, visits):
    for why, _reason in run(wire, visits).values():
        assert isinstance(why, ConnectionLost | ConnectionClosed | LoginRefused)


@pytest.mark.parametrize("wire", WIRES)
def test_the_newcomer_wins_over_one_that_does_not_answer(wire):
    told = run(wire, [Visit(mute_after=1), Visit(at=2, instance="i2")])
    [(number, (_why, reason))] = told.items()
    assert (number, reason) == (0, "duplicate")


@pytest.mark.parametrize("wire", WIRES)
def test_the_newcomer_is_refused_by_one_that_answers(wire):
    told = run(wire, [Visit(), Visit(at=2, instance="i2"), Visit(at=3, instance="i2")])
    assert {number: (type(why), reason) for number, (why, reason) in told.items()} == {
        1: (LoginRefused, "duplicate"),
        2: (LoginRefused, "duplicate"),
    }


@pytest.mark.parametrize("wire", ["tailrace", "msgpack"])
def test_where_the_wire_says_it_the_same_one_wins_at_once(wire):
    [(number, (_why, reason))] = run(wire, [Visit(), Visit(at=2)]).items()
    assert (number, reason) == (0, "duplicate")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("verdict", ["refuses", "raises", "refuses it slowly"])
def test_one_that_the_master_does_not_take_is_told_so(wire, verdict):
    [(why, reason)] = run(wire, [Visit(verdict=verdict)]).values()
    assert reason == "rejected"
    # On msgpack the login is answered before the master is asked.
    assert isinstance(why, ConnectionLost if wire == "msgpack" else LoginRefused)


@pytest.mark.parametrize("wire", WIRES)
def test_two_that_come_while_a_third_is_dead_are_sorted_out(wire):
    told = run(wire, [Visit(mute_after=1), Visit(at=2, instance="i2"), Visit(at=2, instance="i3")])
    assert [reason for _why, reason in told.values()] == ["duplicate", "duplicate"]
    [loser] = [why for number, (why, _reason) in told.items() if number]
    assert isinstance(loser, LoginRefused)


def test_another_one_takes_the_place_of_one_that_is_away():
    """On a wire that resumes: whoever broke off may come back, but has no claim."""
    told = run("tailrace", [Visit(breaks_after=1), Visit(at=5, instance="i2"), Visit(at=8)])
    assert {number: reason for number, (_why, reason) in told.items()} == {0: "", 2: "duplicate"}


def test_one_that_comes_back_is_the_same_and_its_master_is_not_asked_again():
    told = run("tailrace", [Visit(breaks_after=1), Visit(at=5, verdict="refuses")])
    assert set(told) == {0}
