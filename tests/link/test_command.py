"""DESIGN 3.1: what a `RemoteCommandImpl` may rely on."""

from __future__ import annotations

import logging

import pytest
import trio

from tailrace._core import Journal
from tailrace.errors import CommandIdInUse, ConnectionLost, LocalProtocolError, RemoteError, UnknownCommand
from tailrace.limits import Limits

from .farm import LateRecorder, Recorder, Writer, farm

MIB = 1024 * 1024


async def test_a_command_reports_and_completes():
    async with farm() as f:
        impl = Recorder()
        await f.start(impl, args={"command": ["true"], "workdir": "."})
        assert await impl.wait_done() is None
        assert impl.merged() == {"stdout": "hello\n", "rc": 0}
        assert f.handler.calls[-1] == ("startCommand", "b", "1", "hello", {"command": ["true"], "workdir": "."})


async def test_updates_are_contiguous_and_the_receipt_agrees():
    async with farm() as f:
        impl = Recorder()
        await f.start(impl)
        await impl.wait_done()
        ends = [0, *(updates.end for updates in impl.updates)]
        assert [updates.start for updates in impl.updates] == ends[:-1]
        assert impl.updates[-1].receipt_agrees is True
        assert impl.updates[-1].receipt.channels["stdout"][0] == 6


async def test_one_call_carries_all_that_has_arrived():
    async def chatter(proxy, args, interrupted):
        await proxy.callRemote("update", {"stdout": b"first\n"})
        await go_on.wait()
        for _ in range(100):
            await proxy.callRemote("update", {"stdout": b"x\n"})
        await proxy.callRemote("complete")

    go_on = trio.Event()
    async with farm(chatter=chatter) as f:
        impl = Recorder()
        impl.gate = trio.Event()
        await f.start(impl, "chatter")
        await impl.called.wait()
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        impl.gate.set()
        await impl.wait_done()
        assert len(impl.updates) == 2
        assert impl.text() == "first\n" + 100 * "x\n"


async def test_one_call_carries_at_most_update_bytes_max():
    async def flood(proxy, args, interrupted):
        for _ in range(50):
            await proxy.callRemote("update", {"stdout": b"x" * 999 + b"\n"})
        await proxy.callRemote("complete")

    async with farm(flood=flood, limits=Limits(update_bytes_max=10_000)) as f:
        impl = Recorder()
        impl.gate = trio.Event()
        await f.start(impl, "flood")
        await trio.testing.wait_all_tasks_blocked()
        impl.gate.set()
        await impl.wait_done()
        assert len(impl.raw) == 50_000
        assert max(updates.end - updates.start for updates in impl.updates) <= 10_000


async def test_a_slow_impl_slows_its_worker_and_no_other_command():
    sent = 0

    async def flood(proxy, args, interrupted):
        nonlocal sent
        while not interrupted.is_set():
            await proxy.callRemote("update", {"stdout": b"x" * 65536})
            sent += 65536
        await proxy.callRemote("complete")

    async with farm(flood=flood) as f:
        slow, quick = Recorder(), Recorder()
        slow.gate = trio.Event()
        await f.start(slow, "flood")
        await trio.testing.wait_all_tasks_blocked()
        stalled_at = sent
        assert stalled_at < 16 * MIB
        await f.start(quick, command="2")
        assert await quick.wait_done() is None
        await f.conn.remotePrint("still there")
        assert sent == stalled_at
        await f.conn.remoteInterruptCommand("b", "1", "enough")
        slow.gate.set()
        await slow.wait_done()
        assert len(slow.raw) == sent


async def test_the_completion_is_durable_when_remote_complete_has_returned():
    class Thorough(Recorder):
        async def remote_complete(self, failure=None):
            await super().remote_complete(failure)
            await let_go.wait()

    async def tell(proxy, args, interrupted):
        await proxy.callRemote("complete")
        completed.set()

    let_go, completed = trio.Event(), trio.Event()
    async with farm(tell=tell) as f:
        impl = Thorough()
        await f.start(impl, "tell")
        await impl.wait_done()
        await trio.testing.wait_all_tasks_blocked()
        assert not completed.is_set()
        with pytest.raises(CommandIdInUse):
            await f.start(Recorder())
        let_go.set()
        await completed.wait()
        await f.start(Recorder())


async def test_an_impl_may_say_later_what_is_durable():
    async def tell(proxy, args, interrupted):
        await proxy.callRemote("update", {"stdout": b"x" * 100})
        await proxy.callRemote("complete")
        completed.set()

    completed = trio.Event()
    async with farm(tell=tell) as f:
        impl = LateRecorder()
        await f.start(impl, "tell")
        await impl.wait_done()
        await trio.testing.wait_all_tasks_blocked()
        assert not completed.is_set()
        with pytest.raises(LocalProtocolError, match="between"):
            f.conn.durable("1", impl.updates[-1].end + 1)
        f.conn.durable("1", impl.updates[-1].start)
        await trio.testing.wait_all_tasks_blocked()
        assert not completed.is_set()
        f.conn.durable("1", impl.updates[-1].end)
        await completed.wait()
        with pytest.raises(LocalProtocolError, match="no command"):
            f.conn.durable("1", 0)


async def test_durable_is_not_for_an_impl_that_is_durable_on_return():
    async with farm() as f:
        await f.start(Recorder(), "wait")
        with pytest.raises(LocalProtocolError, match="durable on return"):
            f.conn.durable("1", 0)


async def test_a_refused_command_is_not_completed():
    async with farm() as f:
        impl = Recorder()
        with pytest.raises(UnknownCommand, match="'nonsense'"):
            await f.start(impl, "nonsense")
        await trio.testing.wait_all_tasks_blocked()
        assert impl.completions == []
        await f.start(impl)
        await impl.wait_done()


async def test_a_refusal_of_another_kind_is_a_remote_error():
    async with farm() as f:

        async def refuse(*args):
            raise ValueError("no\nroom")

        f.handler.startCommand = refuse
        with pytest.raises(RemoteError) as caught:
            await f.start(Recorder())
        assert (caught.value.type, caught.value.text) == ("ValueError", "no room")


async def test_an_impl_that_raises_ends_its_command_and_nothing_else(caplog):
    class Broken(Recorder):
        async def remote_update(self, updates):
            await super().remote_update(updates)
            raise KeyError("oops")

    async with farm() as f:
        impl = Broken()
        await f.start(impl, "wait")
        failure = await impl.wait_done()
        assert isinstance(failure, RemoteError)
        assert failure.type == "KeyError"
        assert len(impl.updates) == 1
        assert f.handler.calls[-1][:3] == ("interruptCommand", "b", "1")
        assert "remote_update raised" in caplog.text
        await f.conn.remotePrint("still there")
        await f.start(Recorder(), command="1")


async def test_what_remote_complete_raises_is_logged(caplog):
    class Broken(Recorder):
        async def remote_complete(self, failure=None):
            await super().remote_complete(failure)
            raise KeyError("oops")

    async with farm() as f:
        impl = Broken()
        await f.start(impl)
        await impl.wait_done()
        await trio.testing.wait_all_tasks_blocked()
        assert "remote_complete raised" in caplog.text
        await f.start(Recorder(), command="1")


async def test_the_workers_failure_is_told():
    async def fail(proxy, args, interrupted):
        await proxy.callRemote("complete", RemoteError("OSError", "disk full"))

    async with farm(fail=fail) as f:
        impl = Recorder()
        await f.start(impl, "fail")
        failure = await impl.wait_done()
        assert isinstance(failure, RemoteError)
        assert (failure.type, failure.text) == ("OSError", "disk full")


@pytest.mark.parametrize("patience_s", [0, 0.01])
async def test_a_journal_that_is_given_up_completes_with_an_error(patience_s):
    async def give_up(proxy, args, interrupted):
        with trio.move_on_after(patience_s):
            await proxy.send(Stuck())

    class Stuck:
        def __init__(self):
            self.journal = Journal()
            if patience_s:
                self.journal.append("stdout", b"begun", 0, 0)

        async def wait_grown(self, end):
            await trio.sleep_forever()

        def released(self, offset):
            pass

        def spooling(self, on):
            pass

    async with farm(give_up=give_up) as f:
        impl = Recorder()
        await f.start(impl, "give_up")
        failure = await impl.wait_done()
        assert isinstance(failure, RemoteError)
        assert "gave up" in failure.text


@pytest.mark.parametrize("how", ["loseConnection", "worker leaves", "transport breaks", "cancelled"])
async def test_remote_complete_is_called_once_when_the_connection_is_lost(how, caplog):
    caplog.set_level(logging.CRITICAL, logger="tailrace.link")
    impl = Recorder()
    async with farm(limits=Limits(resume_grace_s=0)) as f:
        await f.start(impl, "wait")
        await impl.called.wait()
        if how == "loseConnection":
            f.conn.loseConnection()
        elif how == "worker leaves":
            f.worker.loseConnection()
        elif how == "transport breaks":
            await trio.aclose_forcefully(f.worker_end)
        else:
            f.nursery.cancel_scope.cancel()
        await impl.wait_done()
        f.nursery.cancel_scope.cancel()
    assert len(impl.completions) == 1
    assert isinstance(impl.completions[0], ConnectionLost)


async def test_the_last_update_ends_before_the_loss_is_told():
    async with farm() as f:
        impl = Recorder()
        impl.gate = trio.Event()
        await f.start(impl, "wait")
        await impl.called.wait()
        f.conn.loseConnection()
        await trio.testing.wait_all_tasks_blocked()
        assert impl.completions == []
        impl.gate.set()
        assert isinstance(await impl.wait_done(), ConnectionLost)
        f.nursery.cancel_scope.cancel()


async def test_a_cancelled_start_interrupts_the_command():
    async with farm() as f:
        f.handler.answers = trio.Event()
        impl = Recorder()
        f.nursery.start_soon(f.conn.remotePrint, "holds up the calls behind it")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01):
            await f.start(impl, "wait")
        assert impl.completions == []
        f.handler.answers.set()
        assert await impl.wait_done() is None
        assert impl.merged()["failure_reason"] == "interrupted"


async def test_a_command_needs_a_builder_and_a_free_id():
    async with farm() as f:
        with pytest.raises(LocalProtocolError, match="'other' was not set"):
            await f.conn.remoteStartCommand(Recorder(), "other", "1", "hello", {})
        await f.start(Recorder(), "wait")
        with pytest.raises(CommandIdInUse):
            await f.start(Recorder())


async def test_arguments_that_cannot_be_sent_start_nothing():
    async with farm() as f:
        impl = Recorder()
        with pytest.raises(LocalProtocolError):
            await f.start(impl, args={"workdir": object()})
        with pytest.raises(LocalProtocolError, match="at most one"):
            await f.start(impl, args={"a": Writer(), "b": Writer()})
        with pytest.raises(LocalProtocolError, match="RemoteCommandImpl"):
            await f.start(Writer())
        assert impl.completions == []
        await f.start(impl)
        await impl.wait_done()


async def test_large_arguments_arrive():
    async with farm() as f:
        impl = Recorder()
        await f.start(impl, args={"initial_stdin": "x" * MIB})
        await impl.wait_done()
        assert f.handler.calls[-1][-1] == {"initial_stdin": "x" * MIB}


async def test_text_split_over_calls_is_whole():
    text = "żółw 🐢 "

    async def drip(proxy, args, interrupted):
        for byte in text.encode() + b"\xf0\x9f":
            await proxy.callRemote("update", {"stdout": bytes((byte,))})
            await trio.testing.wait_all_tasks_blocked()
        await proxy.callRemote("update", {"rc": 3})
        await proxy.callRemote("complete")

    async with farm(drip=drip) as f:
        impl = Recorder()
        await f.start(impl, "drip")
        await impl.wait_done()
        assert impl.text() == text + "\N{REPLACEMENT CHARACTER}"
        assert impl.raw == text.encode() + b"\xf0\x9f"
        assert impl.updates[-1]["rc"] == 3
        assert impl.updates[-1]["stdout"] == "\N{REPLACEMENT CHARACTER}"


async def test_the_workers_encoding_is_used():
    async def latin(proxy, args, interrupted):
        await proxy.callRemote("update", {"stdout": "grün".encode("latin-1")})
        await proxy.callRemote("complete")

    async with farm(latin=latin) as f:
        f.handler.info = {"encoding": "latin-1"}
        await f.conn.remoteGetWorkerInfo()
        impl = Recorder()
        await f.start(impl, "latin")
        await impl.wait_done()
        assert impl.text() == "grün"


async def test_two_logs_never_share_a_call():
    async def logs(proxy, args, interrupted):
        for name in ("a", "b", "a"):
            await proxy.callRemote("update", {"log": (name, f"of {name}")})
        await proxy.callRemote("complete")

    async with farm(logs=logs) as f:
        impl = Recorder()
        impl.gate = trio.Event()
        await f.start(impl, "logs")
        await trio.testing.wait_all_tasks_blocked()
        impl.gate.set()
        await impl.wait_done()
        assert [u["log"] for u in impl.updates if "log" in u] == [("a", "of a"), ("b", "of b"), ("a", "of a")]


async def test_an_undecodable_tail_of_each_log_is_let_go():
    async def logs(proxy, args, interrupted):
        for name in ("a", "b"):
            await proxy.callRemote("update", {"log": (name, b"x\xc3")})
        await proxy.callRemote("update", {"stderr": b"\xe2\x82"})
        await trio.testing.wait_all_tasks_blocked()
        await proxy.callRemote("update", {"rc": 0})
        await proxy.callRemote("complete")

    async with farm(logs=logs) as f:
        impl = Recorder()
        await f.start(impl, "logs")
        await impl.wait_done()
        texts = {}
        for updates in impl.updates:
            if "log" in updates:
                name, text = updates["log"]
                texts[name] = texts.get(name, "") + text
        assert texts == {"a": "x\N{REPLACEMENT CHARACTER}", "b": "x\N{REPLACEMENT CHARACTER}"}
        assert impl.text("stderr") == "\N{REPLACEMENT CHARACTER}"


async def test_records_that_are_none_end_the_connection():
    async def lie(proxy, args, interrupted):
        stream = pumps[0].open("journal", "1")
        await stream.write(b"\x00\x00\x00\x02\x7fx")
        await interrupted.wait()

    pumps = []
    async with farm(lie=lie) as f:
        pumps.append(f.worker._pump)
        impl = Recorder()
        await f.start(impl, "lie")
        assert isinstance(await impl.wait_done(), ConnectionLost)
        assert impl.updates == []
        assert (await f.worker.wait_closed()).reason == "protocol"
        f.nursery.cancel_scope.cancel()


async def test_a_journal_without_a_completion_is_an_error():
    async def stop_short(proxy, args, interrupted):
        journal = Journal()
        journal.append("stdout", b"and then", 0, 0)
        stream = pumps[0].open("journal", "1")
        stream.write_journal(journal)
        await stream.finish()
        finished.set()

    pumps, finished = [], trio.Event()
    async with farm(stop_short=stop_short) as f:
        pumps.append(f.worker._pump)
        impl = LateRecorder()
        await f.start(impl, "stop_short")
        failure = await impl.wait_done()
        assert isinstance(failure, RemoteError)
        assert "without a completion" in failure.text
        assert impl.raw == b"and then"
        await finished.wait()


async def test_a_receipt_that_disagrees_is_damage(caplog):
    async def miscount(proxy, args, interrupted):
        honest, other = Journal(), Journal()
        honest.append("stdout", b"one\n", 0, 0)
        other.append("stdout", b"two\n", 0, 0)
        other.finish()
        begun, whole = honest.batch(0, MIB), other.batch(0, MIB)
        assert begun.end == other.batch(0, 1).end
        stream = pumps[0].open("journal", "1")
        await stream.write(bytes(begun.raw) + bytes(whole.raw)[begun.end :])
        await stream.finish()

    pumps = []
    async with farm(miscount=miscount) as f:
        pumps.append(f.worker._pump)
        impl = Recorder()
        await f.start(impl, "miscount")
        assert await impl.wait_done() is None
        assert impl.updates[-1].receipt_agrees is False
        assert "is damaged" in caplog.text


async def test_a_completion_and_its_receipt_are_shown_in_one_call():
    async def in_two(proxy, args, interrupted):
        journal = Journal()
        journal.update({"rc": 0})
        journal.finish()
        raw = bytes(journal.batch(0, MIB).raw)
        stream = pumps[0].open("journal", "1")
        # The receipt is the last record; its length is in the four bytes before it.
        at = receipt_of(raw)
        await stream.write(raw[:at])
        await trio.testing.wait_all_tasks_blocked()
        assert impl.updates == []
        await stream.write(raw[at:])
        await stream.finish()

    def receipt_of(raw):
        at = 0
        while True:
            length = 4 + int.from_bytes(raw[at : at + 4])
            if at + length == len(raw):
                return at
            at += length

    pumps, impl = [], Recorder()
    async with farm(in_two=in_two) as f:
        pumps.append(f.worker._pump)
        await f.start(impl, "in_two")
        assert await impl.wait_done() is None
        assert [dict(updates) for updates in impl.updates] == [{"rc": 0}]
        assert impl.updates[0].receipt_agrees is True
