"""When what goes over a connection goes compressed, and that it is the same at the far end."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing

from tailrace.limits import MIB, Limits
from tailrace.link import compression as module
from tailrace.link import leisure
from tailrace.link.compression import GRANT_BYTES, LEVEL, LEVEL_THOROUGH, LOOK_S, Compression
from tailrace.link.dial import dial_stream
from tailrace.link.leisure import Leisure, leisures
from tailrace.link.listener import Listener

from .farm import SECRET, Handler, Master, Recorder

LINE_BYTES_S = 1_000_000
# A little more than a tenth: ten of them are not less than a whole.
STEP_S = LOOK_S * 0.1001


@attrs.define
class Idle:
    """Somebody's leisure, as the test says."""

    has: float = 1.0

    def share(self):
        return self.has


@attrs.define
class Wire:
    """A session that notes what it is told."""

    bytes_sent: int = 0
    unsettled: int = 0
    is_held: bool = False
    told: list = attrs.field(factory=list)

    def compress(self, level, count):
        self.told.append((level, count))

    def welcome_compressed(self, welcome):
        self.told.append(welcome)

    def statistics(self):
        return {"bytes_sent": self.bytes_sent, "unsettled": self.unsettled}


def one(has=1.0, **limits):
    wire, idle = Wire(), Idle(has)
    return wire, idle, Compression(wire, Limits(**limits), idle)


async def send(wire, what, *, rate, waits=1.0, times=10):
    """In steps, of each of which the sender waits for this part."""
    for _ in range(times):
        what.sent(is_full=True)
        await trio.sleep(STEP_S * waits)
        wire.bytes_sent += rate * STEP_S
        what.sent(is_full=False)
        await trio.sleep(STEP_S * (1 - waits))
    what.sent(is_full=True)
    what.sent(is_full=False)


@pytest.mark.parametrize(
    ("rate", "waits", "has", "told"),
    [
        (100_000_000, 1, 1, [(LEVEL, GRANT_BYTES)]),
        (100_000_000, 0.6, 0.3, [(LEVEL, GRANT_BYTES)]),
        (12_500_000, 1, 1, [(LEVEL_THOROUGH, GRANT_BYTES)]),
        (12_500_000, 0.4, 1, []),
        (12_500_000, 1, 0.2, []),
        (130_000_000, 1, 1, []),
    ],
)
async def test_a_sender_compresses_while_it_waits_for_a_slow_line_and_has_time(autojump_clock, rate, waits, has, told):
    wire, _, what = one(has)
    await send(wire, what, rate=rate, waits=waits)
    assert wire.told == told
    await send(wire, what, rate=rate, waits=waits)
    assert wire.told == 2 * told


async def test_to_wait_for_credit_is_to_wait(autojump_clock):
    wire, _, what = one()
    wire.is_held = True
    what.sent(is_full=False)
    await trio.sleep(LOOK_S)
    what.sent(is_full=False)
    assert wire.told == [(LEVEL_THOROUGH, GRANT_BYTES)]


async def test_who_never_waits_is_not_even_looked_at(autojump_clock):
    wire, _, what = one()
    for _ in range(100):
        what.sent(is_full=False)
        await trio.sleep(LOOK_S)
    assert wire.told == []


async def test_compressed_bytes_are_welcome_to_who_has_time(autojump_clock):
    wire, idle, what = one()

    def brings(has, unsettled=0):
        idle.has, wire.unsettled, wire.told = has, unsettled, []
        what.received(module.ARRIVED_BYTES)
        return wire.told

    assert brings(0.4) == []
    assert brings(0.5) == [True]
    assert brings(0.3) == []
    assert brings(0.2) == [False]
    assert brings(0.4) == []
    assert brings(1.0) == [True]


async def test_they_are_not_welcome_to_who_is_waited_for(autojump_clock):
    wire, _, what = one()

    def brings(unsettled):
        wire.unsettled, wire.told = unsettled, []
        what.received(module.ARRIVED_BYTES)
        return wire.told

    assert brings(2 * MIB) == []
    await trio.sleep(1)
    assert brings(MIB) == [True]
    # A heap that is taken soon is no matter.
    for unsettled in (4 * MIB, 3 * MIB, MIB, 4 * MIB, 2 * MIB):
        assert brings(unsettled) == []
        await trio.sleep(module.BEHIND_S * 0.4)
    assert brings(2 * MIB) == []
    await trio.sleep(module.BEHIND_S * 0.4)
    assert brings(2 * MIB) == [False]
    assert brings(2 * MIB) == []
    assert brings(MIB) == [True]


async def test_nothing_is_said_to_who_sends_little():
    wire, _, what = one()
    what.received(module.ARRIVED_BYTES - 1)
    assert wire.told == []
    what.received(1)
    assert wire.told == [True]


def test_the_time_that_a_thread_has_is_what_it_neither_ran_nor_wanted_to(monkeypatch):
    now, wanted = 100.0, 7.0
    monkeypatch.setattr(leisure, "_now", lambda: (now, wanted))
    monkeypatch.setattr(leisure.time, "monotonic", lambda: now)
    found = Leisure()
    assert found.share() == 1
    now, wanted = 100.4, 7.4
    assert found.share() == 1  # too soon to know
    now, wanted = 101.0, 7.75
    assert found.share() == 0.25
    now, wanted = 102.0, 9.0
    assert found.share() == 0
    now, wanted = 112.0, 9.1
    assert found.share() == pytest.approx(0.99)


@pytest.mark.parametrize("counts", [True, False])
def test_the_kernel_says_how_long_a_thread_has_run(monkeypatch, tmp_path, counts):
    if not counts:
        monkeypatch.setattr(leisure, "_SCHEDULED", tmp_path / "missing")
    began, before = leisure._now()
    while leisure.time.thread_time() < before + 0.02 and leisure._now()[1] < before + 0.02:
        pass
    now, after = leisure._now()
    assert 0.02 <= after - before <= now - began + 0.02


class Slow(trio.abc.Stream):
    """The end of a line that carries so many bytes a second."""

    def __init__(self, stream):
        self.stream = stream
        self.carried = 0

    async def send_all(self, data):
        for start in range(0, len(data), 10_000):
            piece = data[start : start + 10_000]
            await trio.sleep(len(piece) / LINE_BYTES_S)
            await self.stream.send_all(piece)
            self.carried += len(piece)

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes=None):
        return await self.stream.receive_some(max_bytes)

    async def aclose(self):
        await self.stream.aclose()


def log(size):
    """Lines as a compiler writes them."""
    chance = random.Random(1)
    lines = (f"[{n:6}] Compiling src/{chance.choice('abc')}/{chance.randrange(1000)}.c\n" for n in range(size // 30))
    return "".join(lines).encode()


async def carried_of(data, *, master=None, worker=None, has=1.0):
    """How much the line carried of a command that writes `data`, all of which has to arrive."""
    leisures.set(Idle(has))

    async def write(proxy, args, interrupted):
        for start in range(0, len(data), 50_000):
            await proxy.callRemote("update", {"stdout": data[start : start + 50_000]})
        await proxy.callRemote("update", {"rc": 0})
        await proxy.callRemote("complete")

    ours = Master()
    listener = Listener(ours, "tailrace://127.0.0.1:0", limits=master or Limits())
    listener.updateRegistration("w1", SECRET)
    master_end, worker_end = map(Slow, trio.testing.memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve_stream, master_end)
        handler = Handler(nursery, write=write)
        async with dial_stream(
            worker_end, name="w1", secret=SECRET, instance="i1", handler=handler, limits=worker or Limits()
        ):
            [conn] = ours.connections
            await conn.remoteSetBuilderList([("b", "dir")])
            impl = Recorder()
            await conn.remoteStartCommand(impl, "b", "1", "write", {})
            with trio.fail_after(60):
                await impl.done.wait()
            assert impl.raw == data
        nursery.cancel_scope.cancel()
    return worker_end.carried


async def test_over_a_slow_line_a_log_goes_compressed(autojump_clock):
    began = trio.current_time()
    assert await carried_of(log(4_000_000)) < 1_000_000
    assert trio.current_time() - began < 1.2


async def test_what_nobody_can_compress_goes_as_it_is(autojump_clock):
    noise = random.Random(2).randbytes(2_000_000)
    assert len(noise) < await carried_of(noise) < 1.01 * len(noise)


NEVER = Limits(compress_below_bytes_s=0)


@pytest.mark.parametrize("how", [{"master": NEVER}, {"worker": NEVER}, {"has": 0.1}])
async def test_not_if_one_side_is_not_to_or_has_no_time(autojump_clock, how):
    data = log(1_000_000)
    assert await carried_of(data, **how) > len(data)
