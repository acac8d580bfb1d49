"""A connection that breaks, and goes on: nothing lost, nothing doubled, order kept."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace._core import Journal
from tailrace.errors import ConnectionClosed, ConnectionLost, LoginRefused, RemoteError, TailraceError
from tailrace.limits import Limits
from tailrace.link.dial import dial_stream
from tailrace.link.holdings import Holdings
from tailrace.link.listener import Listener
from tailrace.link.resume import CommandKey, Resume

from .farm import SECRET, Handler, LateRecorder, Master, Reader, Recorder, Writer
from .wires import Wire

PIECE = b"all work and no play makes a long log\n"


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="tailrace.link")


@attrs.define
class Bench:
    """A master and a worker that can be cut apart, and come together again."""

    nursery: trio.Nursery
    master: Master
    listener: Listener
    handler: Handler
    holdings: Holdings
    limits: Limits
    wire: Wire | None = None
    worker: object = None
    sessions: int = 0
    sent: int = 0
    instance: str = "i1"

    @property
    def conn(self):
        return self.master.connections[-1]

    async def attach(self, *, to_worker=None, to_master=None):
        """One more session, which is cut when so many bytes went one way."""
        self.wire = wire = Wire()
        wire.master.budget, wire.worker.budget = to_worker, to_master
        self.sessions += 1
        self.nursery.start_soon(self.listener.serve_stream, wire.master)
        await self.nursery.start(self._serve, wire)

    async def _serve(self, wire, task_status):
        started = False
        try:
            async with dial_stream(
                wire.worker,
                name="w1",
                secret=SECRET,
                instance=self.instance,
                handler=self.handler,
                limits=self.limits,
                holdings=self.holdings,
            ) as worker:
                self.worker, started = worker, True
                task_status.started()
                await worker.wait_closed()
        except (TailraceError, trio.BrokenResourceError, trio.ClosedResourceError):
            if not started:
                task_status.started()
        finally:
            self.sent += wire.sent

    async def cut(self):
        """Cut, and wait until both sides know."""
        self.wire.cut()
        await self.wait_state("suspended")

    async def wait_state(self, state):
        with trio.fail_after(1000):
            while self.conn.state != state:  # noqa: ASYNC110 - it says it to nobody
                await trio.sleep(0.001)

    async def again(self, **budgets):
        await self.cut()
        await self.attach(**budgets)
        await self.wait_state("attached")

    async def start(self, impl, name="hello", args=None, *, command="1"):
        await self.conn.remoteStartCommand(impl, "b", command, name, args or {})


@asynccontextmanager
async def bench(*, limits=None, master=None, **commands):
    limits = limits or Limits()
    master = master or Master()
    listener = Listener(master, "tailrace://127.0.0.1:0", limits=limits)
    listener.updateRegistration("w1", SECRET)
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, master, listener, Handler(nursery, **commands), Holdings(nursery), limits)
        await bench.attach()
        await bench.conn.remoteSetBuilderList([("b", "dir")])
        yield bench
        nursery.cancel_scope.cancel()


def writing(*events, size=1, count=10):
    """A command that writes `count` blocks of `size` pieces, and waits for an event before each of the first ones."""

    async def write(proxy, args, interrupted):
        for number in range(count):
            if number < len(events):
                await events[number].wait()
            await proxy.callRemote("update", {"stdout": b"%d " % number + PIECE * size})
        await proxy.callRemote("update", {"rc": 0})
        await proxy.callRemote("complete")

    return write


def written(size=1, count=10):
    return b"".join(b"%d " % number + PIECE * size for number in range(count))


async def test_a_log_goes_on_where_it_broke_off():
    events = [trio.Event() for _ in range(3)]
    async with bench(write=writing(*events)) as b:
        lost = []
        b.conn.notifyOnDisconnect(lambda: lost.append(1))
        impl = Recorder()
        await b.start(impl, "write")
        for event in events:
            event.set()
            await trio.testing.wait_all_tasks_blocked()
            await b.again()
        assert await impl.wait_done() is None
        assert impl.raw == written()
        assert impl.merged()["rc"] == 0
        assert impl.updates[-1].receipt_agrees
        assert len(impl.completions) == 1
        assert len(b.master.connections) == 1
        assert b.sessions == 4
        assert lost == []
        await trio.testing.wait_all_tasks_blocked()
        assert b.holdings.of("the-master") == []


async def test_what_is_written_while_the_master_is_away_arrives_when_it_is_back():
    event = trio.Event()
    async with bench(write=writing(event, size=100)) as b:
        impl = Recorder()
        await b.start(impl, "write")
        before = b.conn.statistics().bytes_received
        await b.cut()
        assert b.conn.statistics().bytes_received == before
        event.set()
        await trio.testing.wait_all_tasks_blocked()
        assert impl.raw == b""
        assert impl.completions == []
        await b.attach()
        assert await impl.wait_done() is None
        assert impl.raw == written(100)
        assert b.conn.statistics().bytes_received > before + len(impl.raw)


# One block of the handshake, and then ever more of a session.
CUTS = st.lists(st.tuples(st.sampled_from(["to_worker", "to_master"]), st.integers(300, 60_000)), max_size=12)


UPLOAD, DOWNLOAD = b"up" * 40_000, b"down" * 30_000


async def all_at_once(proxy, args, interrupted):
    """A command that writes a log, sends a file and takes one."""

    async def send(writer):
        for begin in range(0, len(UPLOAD), 9_000):
            await writer.callRemote("write", UPLOAD[begin : begin + 9_000])
        await writer.callRemote("close")

    async def receive(reader):
        got = b""
        while data := await reader.callRemote("read", 10_000):
            got += data
        await reader.callRemote("close")
        assert got == DOWNLOAD

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, args["writer"])
        nursery.start_soon(receive, args["reader"])
        for number in range(20):
            await proxy.callRemote("update", {"stdout": b"%d " % number + PIECE * 200})
    await proxy.callRemote("update", {"rc": 0})
    await proxy.callRemote("complete")


async def cut_again_and_again(cuts, impl):
    async with bench(all=all_at_once) as b:
        writer, reader = Writer(), Reader(DOWNLOAD)
        await b.start(impl, "all", {"writer": writer, "reader": reader})
        for budgets in [*({side: budget} for side, budget in cuts), {}]:
            await b.cut()
            await b.attach(**budgets)
        assert await impl.wait_done() is None
        assert impl.raw == written(200, 20)
        assert impl.updates[-1].receipt_agrees
        assert (bytes(writer.data), writer.calls[-1], reader.closed) == (UPLOAD, ("close",), 1)
        await trio.testing.wait_all_tasks_blocked()
        if not impl.durable_on_return:
            assert len(b.holdings.of("the-master")) == 1
            b.conn.durable("1", impl.updates[-1].end)
            await trio.testing.wait_all_tasks_blocked()
        assert b.holdings.of("the-master") == []
        assert b.conn.statistics().commands == 0
        assert len(b.master.connections) == 1


@settings(max_examples=60, deadline=None)
@given(CUTS, st.sampled_from([Recorder, LateRecorder]))
def test_any_cuts_leave_everything_as_it_was(cuts, recorder):
    trio.run(cut_again_and_again, cuts, recorder(), clock=trio.testing.MockClock(autojump_threshold=0))


async def test_bytes_that_were_taken_are_kept_until_they_are_durable():
    begun = trio.Event()
    begun.set()
    async with bench(write=writing(begun, trio.Event(), count=2)) as b:
        impl = LateRecorder()
        await b.start(impl, "write")
        await impl.called.wait()
        [holding] = b.holdings.of("the-master")
        end = impl.updates[-1].end
        await b.again()
        await trio.testing.wait_all_tasks_blocked()
        assert holding.describe().begin == 0
        # Said while it is away: told when it is back.
        await b.cut()
        b.conn.durable("1", end)
        await b.attach()
        await trio.testing.wait_all_tasks_blocked()
        assert holding.describe().begin == end


async def test_calls_wait_for_the_next_session(autojump_clock):
    async with bench() as b:
        await b.cut()
        done = []

        async def ask():
            await b.conn.remotePrint("later")
            done.append(await b.conn.remoteGetWorkerInfo())

        b.nursery.start_soon(ask)
        await trio.sleep(10)
        assert done == []
        await b.attach()
        await trio.sleep(1)
        assert done == [b.handler.info]
        assert ("print", "later") in b.handler.calls
        # The builders were set again, before anything else.
        assert b.handler.calls.index(("setBuilderList", [("b", "dir")])) < b.handler.calls.index(("print", "later"))


async def test_a_call_whose_answer_is_lost_may_have_been_carried_out():
    async with bench() as b:
        b.handler.answers = trio.Event()
        lost = []

        async def ask():
            with pytest.raises(ConnectionLost) as caught:
                await b.conn.remotePrint("once")
            lost.append(caught.value)

        b.nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await b.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert [error.maybe_done for error in lost] == [True]
        assert b.handler.calls.count(("print", "once")) == 1


@pytest.mark.parametrize("side", ["to_worker", "to_master"])
async def test_a_start_is_said_again_and_done_once(side, autojump_clock):
    for budget in range(0, 400, 7):
        async with bench() as b:
            await b.cut()
            impl = Recorder()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(b.start, impl)
                await trio.sleep(1)
                # Behind the handshake, somewhere in the start.
                await b.attach()
                b.wire.master.budget = budget if side == "to_worker" else None
                b.wire.worker.budget = budget if side == "to_master" else None
                await trio.sleep(1)
                if b.wire.is_cut:
                    await b.attach()
            assert await impl.wait_done() is None
            assert impl.text() == "hello\n"
            assert [call[0] for call in b.handler.calls].count("startCommand") == 1


async def test_an_interrupt_comes_behind_the_start_that_it_means(autojump_clock):
    for _ in range(20):
        async with bench() as b:
            await b.cut()
            impl = Recorder()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(b.start, impl, "wait")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(b.conn.remoteInterruptCommand, "b", "1", "enough")
                await trio.testing.wait_all_tasks_blocked()
                await b.attach()
            assert await impl.wait_done() is None
            assert impl.merged()["failure_reason"] == "interrupted"


async def test_the_grace_ends(autojump_clock):
    async with bench(limits=Limits(resume_grace_s=60)) as b:
        lost = []
        b.conn.notifyOnDisconnect(lambda: lost.append(trio.current_time()))
        impl = Recorder()
        await b.start(impl, "wait")
        await impl.called.wait()
        await b.cut()
        broke = trio.current_time()
        await trio.sleep(59)
        assert lost == []
        assert b.conn.state == "suspended"
        failure = await impl.wait_done()
        assert isinstance(failure, ConnectionLost)
        assert "did not come back within 60 s" in failure.text
        assert lost == [pytest.approx(broke + 60, abs=0.1)]
        assert b.conn.state == "lost"
        assert b.listener.statistics().attached == 0
        # Who comes later is a new connection, and the command that it still holds is forgotten.
        await b.attach()
        await trio.sleep(1)
        assert len(b.master.connections) == 2
        assert ("interruptCommand", "", "1", "the master has forgotten it") in b.handler.calls
        assert b.holdings.of("the-master") == []


async def test_sessions_that_break_in_their_greeting_do_not_prolong_the_grace(autojump_clock):
    async with bench(limits=Limits(resume_grace_s=60)) as b:
        impl = Recorder()
        await b.start(impl, "wait")
        await b.cut()
        broke = trio.current_time()
        while not impl.done.is_set():
            await b.attach(to_worker=260)
            await trio.sleep(7)
        assert trio.current_time() - broke < 68


async def test_without_a_grace_a_break_is_a_loss():
    async with bench(limits=Limits(resume_grace_s=0)) as b:
        impl = Recorder()
        await b.start(impl, "wait")
        b.wire.cut()
        assert isinstance(await impl.wait_done(), ConnectionLost)
        assert b.conn.state == "lost"


async def test_closing_while_it_is_away():
    async with bench() as b:
        impl = Recorder()
        await b.start(impl, "wait")
        await b.cut()
        b.conn.loseConnection()
        assert isinstance(await impl.wait_done(), ConnectionLost)
        assert b.conn.state == "lost"
        with pytest.raises(ConnectionClosed):
            await b.conn.remotePrint("x")


async def test_another_instance_takes_the_place_of_one_that_is_away():
    async with bench() as b:
        impl = Recorder()
        await b.start(impl, "wait")
        await b.cut()
        b.holdings, b.instance = Holdings(b.nursery), "i2"
        await b.attach()
        assert isinstance(await impl.wait_done(), ConnectionLost)
        assert [conn.state for conn in b.master.connections] == ["lost", "attached"]


async def test_the_same_instance_takes_over_a_connection_that_seems_to_live():
    event = trio.Event()
    async with bench(write=writing(event)) as b:
        impl = Recorder()
        await b.start(impl, "write")
        old = b.wire
        await b.attach()
        assert not old.is_cut
        event.set()
        assert await impl.wait_done() is None
        assert impl.raw == written()
        assert len(b.master.connections) == 1


async def test_a_stranger_does_not_resume():
    async with bench() as b:
        impl = Recorder()
        await b.start(impl, "wait")
        await b.cut()
        wire = Wire()
        b.nursery.start_soon(b.listener.serve_stream, wire.master)
        with pytest.raises(LoginRefused):
            async with dial_stream(wire.worker, name="w1", secret="wrong", instance="i1", handler=b.handler):
                pass
        assert b.conn.state == "suspended"
        await b.attach()
        await b.wait_state("attached")
        assert impl.completions == []


async def test_a_worker_that_knows_nothing_any_more_has_lost_its_commands():
    async with bench() as b:
        impl = Recorder()
        await b.start(impl, "wait")
        await b.cut()
        b.holdings = Holdings(b.nursery)
        await b.attach()
        failure = await impl.wait_done()
        assert isinstance(failure, ConnectionLost)
        assert "does not know the command any more" in failure.text
        assert b.conn.state == "attached"
        again = Recorder()
        await b.start(again)
        assert await again.wait_done() is None


class Kept:
    """A journal that an earlier process has left."""

    def __init__(self, journal):
        self.journal = journal
        self.away = []

    async def wait_grown(self, end):
        while self.journal.end <= end and not self.journal.ended:  # noqa: ASYNC110 - nobody writes to it
            await trio.sleep(0.01)

    def released(self, offset):
        self.journal.release(offset)

    def spooling(self, on):
        self.away.append(on)


def a_journal(*pieces, ended=True):
    journal = Journal()
    for number, piece in enumerate(pieces):
        journal.append("stdout", piece, number, number)
    if ended:
        journal.update({"rc": 0})
        journal.finish(None)
    return journal


KEY = CommandKey(master="the-master", command="7", builder="b", name="shell", digest=bytes(32))


class Restarted(Master):
    """A master of a new process, which knows this much of command 7."""

    def __init__(self, known):
        super().__init__()
        self.known = known
        self.asked = []

    async def resumeCommand(self, conn, commandId, args):
        self.asked.append((commandId, args))
        if isinstance(self.known, Exception):
            raise self.known
        return self.known


async def adopted(b, journal):
    source = Kept(journal)
    proxy = b.holdings.adopt(KEY, source)
    failures = []

    async def send():
        try:
            await proxy.send(source)
        except TailraceError as error:
            failures.append(error)

    b.nursery.start_soon(send)
    return source, failures


async def test_a_master_that_was_restarted_goes_on_from_what_it_has_safe():
    journal = a_journal(b"one\n", b"two\n", b"three\n")
    first = journal.batch(0, 1)
    impl = Recorder()
    async with bench() as b:
        b.master = master = Restarted(Resume(impl, first.end, journal.chain_at(first.end)))
        b.listener = Listener(master, "tailrace://127.0.0.1:0")
        b.listener.updateRegistration("w1", SECRET)
        b.wire.cut()
        source, failures = await adopted(b, journal)
        await b.attach()
        assert await impl.wait_done() is None
        assert impl.raw == b"two\nthree\n"
        assert impl.updates[0].start == first.end
        assert impl.updates[-1].receipt_agrees
        assert [command for command, _ in master.asked] == ["7"]
        assert master.asked[0][1] == {"builder": "b", "name": "shell", "end": journal.end, "running": False}
        await trio.testing.wait_all_tasks_blocked()
        assert failures == []
        assert b.holdings.of("the-master") == []
        assert source.away[0] is True
        assert source.away[-1] is False


async def test_a_master_that_does_not_want_a_command_has_it_forgotten():
    async with bench() as b:
        b.master = Restarted(None)
        b.listener = Listener(b.master, "tailrace://127.0.0.1:0")
        b.listener.updateRegistration("w1", SECRET)
        b.wire.cut()
        _source, failures = await adopted(b, a_journal(b"one\n", ended=False))
        await b.attach()
        await trio.testing.wait_all_tasks_blocked()
        assert [error.type for error in failures] == ["Forgotten"]
        assert ("interruptCommand", "", "7", "the master has forgotten it") in b.handler.calls
        assert b.holdings.of("the-master") == []


async def test_a_master_that_fails_to_say_is_asked_again():
    impl = Recorder()
    async with bench() as b:
        b.master = Restarted(OSError("the disk is away"))
        b.listener = Listener(b.master, "tailrace://127.0.0.1:0")
        b.listener.updateRegistration("w1", SECRET)
        b.wire.cut()
        await adopted(b, a_journal(b"one\n"))
        await b.attach()
        await trio.testing.wait_all_tasks_blocked()
        assert len(b.holdings.of("the-master")) == 1
        b.master.known = Resume(impl, 0, bytes(32))
        await b.again()
        assert await impl.wait_done() is None
        assert impl.raw == b"one\n"


@pytest.mark.parametrize("what", ["another chain", "forgotten", "beyond", "in between"])
async def test_a_prefix_that_is_another_is_noticed(what):
    """Not only by its length: a run that does not begin as the worker wrote it is damaged, and goes on all the same."""
    journal = a_journal(b"one\n", b"two\n", b"three\n")
    first = journal.batch(0, 1)
    offset, chain, left = first.end, journal.chain_at(first.end), b"two\nthree\n"
    if what == "another chain":
        chain = bytes(32)
    elif what == "forgotten":
        second = journal.batch(first.end, 1)
        journal.release(second.end)
        left = b"three\n"
    else:
        offset = journal.end + 100 if what == "beyond" else first.end + 1
    impl = Recorder()
    async with bench() as b:
        b.master = Restarted(Resume(impl, offset, chain))
        b.listener = Listener(b.master, "tailrace://127.0.0.1:0")
        b.listener.updateRegistration("w1", SECRET)
        b.wire.cut()
        await adopted(b, journal)
        await b.attach()
        failure = await impl.wait_done()
        if what in ("beyond", "in between"):
            assert isinstance(failure, ConnectionLost)
            assert "Damaged" in failure.text
        else:
            assert failure is None
            assert impl.raw == left
            assert impl.updates[-1].receipt_agrees is False
        await trio.testing.wait_all_tasks_blocked()
        assert b.conn.state == "attached"


async def test_a_command_whose_master_stays_away_is_an_orphan(autojump_clock):
    orphans = []
    async with bench() as b:
        b.holdings = Holdings(b.nursery, orphan_timeout_s=3600, on_orphaned=orphans.append)
        await b.again()
        impl = Recorder()
        await b.start(impl, "wait")
        await b.cut()
        await trio.sleep(3599)
        assert orphans == []
        await trio.sleep(2)
        assert [key.command for key in orphans] == ["1"]
        # It is held all the same: the master may want to know how it ended.
        assert len(b.holdings.of("the-master")) == 1


async def test_a_download_that_nobody_wants_any_more_ends_after_a_break():
    async def close_early(proxy, args, interrupted):
        await args["reader"].callRemote("read", 10)
        await args["reader"].callRemote("close")
        await interrupted.wait()
        await proxy.callRemote("update", {"rc": 0})
        await proxy.callRemote("complete")

    async with bench(early=close_early) as b:
        impl, reader = Recorder(), Reader(b"x" * 10_000_000)
        await b.start(impl, "early", {"reader": reader})
        await b.again()
        await trio.testing.wait_all_tasks_blocked()
        assert reader.closed == 1
        await b.conn.remoteInterruptCommand("b", "1", "done")
        assert await impl.wait_done() is None


async def test_an_upload_that_is_given_up_while_the_master_is_away_is_not_closed():
    give_up = trio.Event()

    async def gives_up(proxy, args, interrupted):
        await args["writer"].callRemote("write", b"some")
        await give_up.wait()
        await args["writer"].abort("the file has gone")
        await interrupted.wait()
        await proxy.callRemote("update", {"rc": 1})
        await proxy.callRemote("complete")

    async with bench(gives_up=gives_up) as b:
        impl, writer = Recorder(), Writer()
        await b.start(impl, "gives_up", {"writer": writer})
        await b.cut()
        give_up.set()
        await trio.testing.wait_all_tasks_blocked()
        await b.attach()
        await trio.testing.wait_all_tasks_blocked()
        assert ("close",) not in writer.calls
        await b.conn.remoteInterruptCommand("b", "1", "done")
        assert await impl.wait_done() is None


async def test_the_end_of_a_command_is_told_once_when_the_session_breaks_around_it(autojump_clock):
    """Cut at every place of the end: before it, between the last window and its answer, behind it."""
    for budget in range(0, 700, 11):
        event = trio.Event()
        async with bench(write=writing(event, count=1)) as b:
            impl = Recorder()
            await b.start(impl, "write")
            b.wire.worker.budget = budget
            event.set()
            await trio.sleep(1)
            if b.wire.is_cut:
                await b.attach()
            assert await impl.wait_done() is None
            assert len(impl.completions) == 1
            await trio.sleep(1)
            assert b.holdings.of("the-master") == []


async def test_an_impl_that_raised_stays_interrupted():
    class Broken(Recorder):
        async def remote_update(self, updates):
            raise ValueError("no")

    async with bench() as b:
        impl = Broken()
        await b.start(impl, "wait")
        await b.again()
        failure = await impl.wait_done()
        assert isinstance(failure, RemoteError)
        assert failure.type == "ValueError"


async def test_what_is_started_while_a_session_begins_is_not_taken_for_lost():
    """The worker has said what it holds, and did not hold yet what its new master starts at once."""
    impl = Recorder()

    async def start_something(conn, workerName):
        await conn.remoteSetBuilderList([("b", "dir")])
        await conn.remoteStartCommand(impl, "b", "1", "wait", {})
        return True

    async with bench() as b:
        b.wire.cut()
        b.master = Master(start_something)
        b.listener = Listener(b.master, "tailrace://127.0.0.1:0")
        b.listener.updateRegistration("w1", SECRET)
        await b.attach()
        await impl.called.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert impl.completions == []
        await b.conn.remoteInterruptCommand("b", "1", "enough")
        assert await impl.wait_done() is None
