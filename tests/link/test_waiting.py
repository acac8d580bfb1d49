"""What connections wait with: bells, turns, and the one task that looks after all of them."""

import contextlib
import itertools
import os
import socket

import pytest
import trio
import trio.testing

from tailrace.dialects.native.dialect import NativeDialect
from tailrace.limits import Limits
from tailrace.link.bell import Bell, Turn
from tailrace.link.floodgate import Floodgate
from tailrace.link.pump import CALLS_MAX
from tailrace.link.rounds import FEW, ROUND_S, SOON_S, Rounds
from tailrace.link.transport import GATHER_FROM_BYTES, Transport
from tailrace.link.vigil import LOOKS_EVERY_S, watch
from tests.link.farm import Recorder, farm


class Due:
    """Is to be looked at again and again, `every_s` seconds, `times` times."""

    def __init__(self, every_s, times=10**9):
        self.every_s = every_s
        self.times = times
        self.looked = []

    def look(self):
        now = trio.current_time()
        self.looked.append(now)
        return now + self.every_s if len(self.looked) < self.times else None


def tasks():
    return trio.lowlevel.current_statistics().tasks_living


async def test_a_bell_wakes_those_who_wait_now(autojump_clock):
    bell = Bell()
    woken = []

    async def wait(name):
        await bell.wait()
        woken.append(name)

    bell.ring()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "first")
        nursery.start_soon(wait, "second")
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        bell.ring()
        nursery.start_soon(wait, "late")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == ["first", "second"]
        bell.ring()
    assert woken[2:] == ["late"]


async def test_turns_are_taken_one_after_another(autojump_clock):
    turn = Turn()
    inside = []
    seen = []

    async def take():
        async with turn:
            inside.append(1)
            seen.append(len(inside))
            await trio.sleep(1)
            inside.pop()

    with trio.move_on_after(2.5):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take)
    assert seen == [1, 1, 1]
    # Whoever was cancelled, in the turn or before it, has left it to the next.
    inside.clear()
    await take()
    assert seen == [1, 1, 1, 1]


async def test_one_task_looks_after_all(autojump_clock):
    before, begun = tasks(), trio.current_time()
    slow, quick, short = Due(7), Due(2), Due(3, times=2)
    watches = [watch(slow, begun + 7), watch(quick, begun + 2), watch(short, begun + 3)]
    assert tasks() == before + 1
    await trio.sleep_until(begun + 8.5)
    assert [when - begun for when in slow.looked] == [7]
    assert [when - begun for when in quick.looked] == [2, 4, 6, 8]
    assert [when - begun for when in short.looked] == [3, 6]
    for watched in watches:
        watched.end()
    await trio.sleep(20)
    assert (len(slow.looked), len(quick.looked)) == (1, 4)
    assert tasks() == before
    again = watch(slow, trio.current_time() + 1)
    await trio.sleep(1.5)
    assert len(slow.looked) == 2
    again.end()


async def test_who_is_due_at_almost_the_same_time_is_looked_after_together(autojump_clock):
    begun = trio.current_time()
    crowd = [(begun + 1 + number / 100, Due(1000)) for number in range(100)]
    watches = [watch(due, when) for when, due in crowd]
    await trio.sleep(3)
    assert len({due.looked[0] for _, due in crowd}) <= 11
    assert crowd[0][1].looked == [crowd[0][0]]
    assert all(when <= due.looked[0] <= when + LOOKS_EVERY_S + 0.001 for when, due in crowd)
    for watched in watches:
        watched.end()


async def test_a_mishap_is_not_the_others(autojump_clock, caplog):
    class Broken:
        def look(self):
            raise ValueError("a fault of the test")

    begun = trio.current_time()
    quick = Due(2)
    broken, healthy = watch(Broken(), begun + 1), watch(quick, begun + 2)
    await trio.sleep(5)
    assert len(quick.looked) == 2
    assert "a fault of the test" in caplog.text
    broken.end()
    healthy.end()


async def test_a_connection_that_is_quiet_again_has_no_more_tasks_than_before(autojump_clock):
    async with farm() as a:
        await trio.testing.wait_all_tasks_blocked()
        quiet = tasks()
        impl = Recorder()
        await a.start(impl, "wait")
        await impl.called.wait()
        await trio.testing.wait_all_tasks_blocked()
        # The command, at both ends more than one, and on both sides the task that writes.
        assert tasks() > quiet + 3
        await a.conn.remoteInterruptCommand("b", "1", "enough")
        await impl.wait_done()
        await trio.sleep(1)
        assert tasks() == quiet
        # Pings come and go meanwhile.
        await trio.sleep(100)
        assert tasks() == quiet


async def test_silence_is_asked_for_a_sign_of_life_each_interval(autojump_clock):
    async with farm(limits=Limits(ping_interval_s=15, ping_timeout_s=45)) as a:
        before = a.conn.statistics().bytes_received
        await trio.sleep(15.5)
        pings = a.conn.statistics().bytes_received - before
        assert pings > 0
        await trio.sleep(150)
        # Ten intervals more, and a pong or a ping in each.
        assert a.conn.statistics().bytes_received - before >= 11 * pings // 2


async def test_more_calls_than_the_wire_allows_wait(autojump_clock):
    async with farm() as a:
        a.handler.answers = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(CALLS_MAX + 50):
                nursery.start_soon(a.conn.remotePrint, str(number))
            await trio.testing.wait_all_tasks_blocked()
            assert a.conn.statistics().calls == CALLS_MAX
            a.handler.answers.set()
        said = [call[1] for call in a.handler.calls if call[0] == "print"]
        assert sorted(said, key=int) == [str(number) for number in range(CALLS_MAX + 50)]


async def flood(gate, who, entered, rounds=1):
    """Take a turn that lasts a second."""
    for _ in range(rounds):
        await gate.enter(who)
        entered.append((who, trio.current_time()))
        await trio.sleep(1)
        gate.leave()


async def test_floods_take_turns_in_order(autojump_clock):
    gate, entered, begun = Floodgate(), [], trio.current_time()
    async with trio.open_nursery() as nursery:
        for who in range(10):
            nursery.start_soon(flood, gate, who, entered)
            await trio.testing.wait_all_tasks_blocked()
    # Those of one round run in any order.
    assert sorted((round(when - begun), who) for who, when in entered) == [(who // 4, who) for who in range(10)]


async def test_a_few_floods_need_no_turns():
    gate = Floodgate()
    for who in range(4):
        gate.note(who, in_flood=True)
    gate.note("quiet", in_flood=False)
    assert not gate.is_needed
    gate.note(4, in_flood=True)
    gate.note(4, in_flood=True)
    assert gate.is_needed
    gate.note(4, in_flood=False)
    assert not gate.is_needed


async def test_who_is_in_a_hurry_does_not_wait_for_a_turn(autojump_clock):
    gate, entered, begun = Floodgate(), [], trio.current_time()
    async with trio.open_nursery() as nursery:
        for who in range(12):
            nursery.start_soon(flood, gate, who, entered)
            await trio.testing.wait_all_tasks_blocked()
        gate.hurry(9)
        gate.hurry(9)
        gate.hurry("a stranger")
    let_in = {second: {who for who, when in entered if round(when - begun) == second} for second in range(3)}
    assert let_in == {0: {0, 1, 2, 3, 9}, 1: {4, 5, 6, 7}, 2: {8, 10, 11}}


async def test_who_stops_waiting_for_a_turn_takes_none(autojump_clock):
    gate, entered = Floodgate(), []
    async with trio.open_nursery() as nursery:
        for who in range(4):
            nursery.start_soon(flood, gate, who, entered)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await gate.enter("impatient")
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_let_in, gate, scope)
            await gate.enter("unlucky")
            await trio.sleep_forever()
    entered.clear()
    async with trio.open_nursery() as nursery:
        for who in range(5):
            nursery.start_soon(flood, gate, who, entered)
            await trio.testing.wait_all_tasks_blocked()
        assert len(entered) == 4


async def _cancel_when_let_in(gate, scope):
    """In the same round of the loop: the turn was given, and is not taken."""
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
    gate.hurry("unlucky")


@contextlib.contextmanager
def lines(count):
    """So many pairs of sockets, that do not block."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(count)]
        for end in (end for pair in pairs for end in pair):
            stack.enter_context(end)
            end.setblocking(False)
        yield pairs


async def read(end, found, times=1):
    """In rounds, so many times."""
    left = iter(range(times - 1, -1, -1))

    def on_readable():
        end.recv(100)
        found.append(round(trio.current_time(), 6))
        return next(left) > 0

    await Rounds.here().read(end.fileno(), on_readable)


@pytest.mark.parametrize("others", [0, FEW])
async def test_a_round_finds_what_came_since_the_last_and_who_is_alone_waits_for_none(autojump_clock, others):
    found = []
    with lines(3) as pairs, lines(others) as quiet:
        async with trio.open_nursery() as nursery:
            for ours, _ in pairs + quiet:
                nursery.start_soon(read, ours, found, 9)
            for times in range(1, 4):
                # The first pieces of one may be the begin of a flood. Among many that is not waited for.
                for number, (_, theirs) in enumerate(pairs):
                    await trio.testing.wait_all_tasks_blocked()
                    theirs.send(b"x")
                    await trio.sleep(SOON_S / 4 if number else 0)
                begun = times - 1
                waits = SOON_S if times == 1 and not others else ROUND_S
                await trio.sleep_until(times)
                assert found == [begun, *[round(begun + waits, 6)] * 2]
                found.clear()
            nursery.cancel_scope.cancel()


async def test_no_round_keeps_other_tasks_waiting(autojump_clock):
    found, seen = [], []
    with lines(40) as pairs:
        async with trio.open_nursery() as nursery:
            for ours, _ in pairs:
                nursery.start_soon(read, ours, found)
            await trio.testing.wait_all_tasks_blocked()
            for _, theirs in pairs:
                theirs.send(b"x")
            while len(found) < len(pairs):
                seen.append(len(found))
                await trio.lowlevel.checkpoint()
        assert found == [0] * len(pairs)
        # Of two rounds of the loop at most, since tasks of one take turns in any order.
        assert max(after - before for before, after in itertools.pairwise(seen)) <= 32


async def test_who_is_in_a_hurry_or_gives_up_waits_for_no_round(autojump_clock):
    rounds = Rounds.here()
    with lines(1) as [(ours, theirs)]:
        found = []
        with trio.move_on_after(1) as scope:
            await read(ours, found)
        assert scope.cancelled_caught
        rounds.hurry(ours.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, ours, found)
            await trio.testing.wait_all_tasks_blocked()
            rounds.hurry(ours.fileno())
            # Whoever it is that is found in this round: the task has not run yet.
            theirs.send(b"x")
        assert found == []
        await read(ours, found)
        assert len(found) == 1


async def test_one_who_is_read_in_rounds_sleeps_on_until_it_is_enough(autojump_clock):
    found = []
    with lines(1) as [(ours, theirs)]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, ours, found, 3)
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked()
                theirs.send(b"x")
                await trio.sleep(1)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks == frozenset()
            theirs.send(b"x")
            await trio.sleep(1)
        assert found == [0, 1, 2]
        assert ours.recv(100) == b"x"


async def test_what_goes_wrong_in_a_round_is_the_readers_own(autojump_clock):
    found = []

    def fail():
        raise OSError("of the test")

    with lines(2) as [(ours, theirs), (broken, its)]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, ours, found)
            its.send(b"x")
            with pytest.raises(OSError, match="of the test"):
                await Rounds.here().read(broken.fileno(), fail)
            theirs.send(b"x")
        assert len(found) == 1


class Reading:
    """A dialect that only counts."""

    receive_gathers = 1 << 20
    traits = NativeDialect.traits
    compresses = None

    def __init__(self):
        self.direct = self

    def receive_from(self, fd, most):
        try:
            return len(os.read(fd, most))
        except BlockingIOError:
            return None

    def send_to(self, fd, most):
        return True


async def test_what_was_moderate_is_read_in_rounds_until_somebody_waits_for_an_answer(autojump_clock):
    with lines(1) as [(ours, theirs)]:
        transport = Transport(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), Reading(), Limits())
        whens = []

        def received():
            whens.append(round(trio.current_time(), 6))
            return True

        async def receive():
            # The first by itself, the next two in rounds, and that it was so little ends them.
            for _ in range(2):
                assert await transport.receive(received)
                received()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked()
                theirs.send(bytes(GATHER_FROM_BYTES))
            await trio.sleep(1)
            theirs.send(b"x")
        # The first was read at once, and so was the next, in a round of its own; what came right after that waited.
        assert whens == [0, 0, SOON_S, 1]
        theirs.send(bytes(GATHER_FROM_BYTES))
        await transport.receive(received)
        async with trio.open_nursery() as nursery:
            begun = trio.current_time()
            nursery.start_soon(transport.receive, received)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send(b"x")
            transport.hurry()
        assert trio.current_time() == begun
