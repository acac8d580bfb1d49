"""DESIGN 3.2: a worker, as its master sees it."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import ClassVar

import pytest
import trio
import trio.testing

from tailrace.errors import ConnectionClosed, ConnectionLost, LimitExceeded, LocalProtocolError, RemoteProtocolError
from tailrace.limits import Limits
from tailrace.link.connection import Connection
from tailrace.link.impl import FileReaderImpl, FileWriterImpl, RemoteCommandImpl
from tailrace.link.proxy import FileReaderProxy, FileWriterProxy, RemoteCommandProxy

from .farm import Reader, Recorder, Writer, farm


async def test_calls_reach_the_worker_in_order():
    async with farm() as f:
        await f.conn.remotePrint("one")
        await f.conn.remoteStartBuild("b")
        await f.conn.remoteShutdown()
        assert f.handler.calls[-3:] == [("print", "one"), ("startBuild", "b"), ("shutdown",)]


async def test_what_the_worker_says_of_itself_is_known_before_new_connection():
    async with farm() as f:
        assert f.conn.info == {"encoding": "utf-8", "basedir": "/w"}
        f.handler.info = {"encoding": "latin-1"}
        assert await f.conn.remoteGetWorkerInfo() == {"encoding": "latin-1"}
        assert f.conn.info == {"encoding": "latin-1"}
        assert (f.conn.workerName, f.conn.state) == ("w1", "attached")


async def test_builders_have_handles():
    async with farm(builders=()) as f:
        handles = await f.conn.remoteSetBuilderList([("a", "dir-a"), ("b", "dir-b")])
        assert list(handles) == ["a", "b"]
        assert str(handles["a"]) == "a"
        assert f.handler.calls[-1] == ("setBuilderList", [("a", "dir-a"), ("b", "dir-b")])
        impl = Recorder()
        await f.conn.remoteStartCommand(impl, handles["a"], "1", "hello", {})
        assert await impl.wait_done() is None


async def test_a_builder_that_is_set_no_more_starts_nothing():
    async with farm() as f:
        await f.conn.remoteSetBuilderList([])
        with pytest.raises(LocalProtocolError):
            await f.start(Recorder())


async def test_what_is_no_text_is_refused_here_and_the_connection_lives():
    async with farm() as f:
        conn = f.conn
        for call in (
            partial(conn.remoteStartCommand, Recorder(), "b", 5, "hello", {}),
            partial(conn.remoteStartCommand, Recorder(), "b", "5", None, {}),
            partial(conn.remoteStartCommand, Recorder(), "b", "é" * 2049, "hello", {}),
            partial(conn.remotePrint, b"bytes"),
        ):
            with pytest.raises(LocalProtocolError, match=r"is a str|at most 4096 bytes"):
                await call()
        impl = Recorder()
        await conn.remoteStartCommand(impl, "b", "5", "wait", {})
        with pytest.raises(LocalProtocolError, match="why is a str"):
            await conn.remoteInterruptCommand("b", "5", None)
        await conn.remoteInterruptCommand("b", "5", "enough")
        assert await impl.wait_done() is None


async def test_interrupting_what_does_not_run_is_no_error():
    async with farm() as f:
        await f.conn.remoteInterruptCommand("b", "unknown", "why")
        impl = Recorder()
        await f.start(impl)
        await impl.wait_done()
        await f.conn.remoteInterruptCommand("b", "1", "why")


async def test_an_interrupt_reaches_its_command():
    async with farm() as f:
        impl = Recorder()
        await f.start(impl, "wait")
        await f.conn.remoteInterruptCommand("b", "1", "because")
        assert await impl.wait_done() is None
        assert impl.merged() == {"stdout": "running\n", "failure_reason": "interrupted", "rc": -1}
        assert f.handler.calls[-1] == ("interruptCommand", "b", "1", "because")


async def test_proxies_stand_for_impls_in_a_shallow_copy():
    async with farm() as f:
        writer, env = Writer(), {"A": "B"}
        args = {"writer": writer, "reader": Reader(b""), "env": env}
        proxied = f.conn.createArgsProxies(args)
        assert args["writer"] is writer
        assert isinstance(proxied["writer"], FileWriterProxy)
        assert isinstance(proxied["reader"], FileReaderProxy)
        assert proxied["env"] is env
        assert proxied["writer"].impl is writer


async def test_a_subclass_may_put_its_own_proxies_in():
    written = []

    class CountingProxy(FileWriterProxy):
        async def callRemote(self, message, *args, **kw):
            written.append(message)
            return await super().callRemote(message, *args, **kw)

    class Counting(Connection):
        proxies: ClassVar = {**Connection.proxies, FileWriterImpl: CountingProxy}

    async def upload(proxy, args, interrupted):
        await args["writer"].callRemote("write", b"data")
        await args["writer"].callRemote("close")
        await proxy.callRemote("complete")

    assert Connection.proxies == {
        RemoteCommandImpl: RemoteCommandProxy,
        FileWriterImpl: FileWriterProxy,
        FileReaderImpl: FileReaderProxy,
    }
    async with farm(connection_class=Counting, upload=upload) as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, "upload", {"writer": writer})
        await impl.wait_done()
        assert writer.data == b"data"
        assert written == ["write", "close"]


async def test_disconnection_is_told_once_and_to_those_who_ask_later():
    told = []
    async with farm() as f:
        f.conn.notifyOnDisconnect(lambda: told.append("a"))
        unwanted = f.conn.notifyOnDisconnect(lambda: told.append("unwanted"))
        unwanted.unsubscribe()
        f.conn.loseConnection()
        assert told == ["a"]
        f.conn.loseConnection()
        f.conn.notifyOnDisconnect(lambda: told.append("late"))
        assert told == ["a", "late"]
        assert f.conn.state == "lost"


async def test_a_callback_that_raises_is_logged_and_others_are_called(caplog):
    told = []
    async with farm() as f:
        f.conn.notifyOnDisconnect(lambda: 1 / 0)
        f.conn.notifyOnDisconnect(lambda: told.append("b"))
        f.worker.loseConnection()
        await f.conn.wait_transport_closed()
        assert told == ["b"]
        assert "a callback raised" in caplog.text


async def test_calls_after_the_end_say_who_ended_it():
    async with farm() as f:
        f.conn.loseConnection()
        with pytest.raises(ConnectionClosed):
            await f.conn.remotePrint("x")
        with pytest.raises(ConnectionClosed):
            await f.start(Recorder())
        why = await f.worker.wait_closed()
        assert isinstance(why, ConnectionLost)
        assert why.reason == "bye"
    async with farm() as f:
        f.worker.loseConnection("draining")
        await f.conn.wait_transport_closed()
        with pytest.raises(ConnectionLost) as caught:
            await f.conn.remoteInterruptCommand("b", "1", "why")
        assert not caught.value.maybe_done
        assert caught.value.reason == "draining"


async def test_a_call_that_waits_when_the_connection_breaks_may_have_been_done():
    async with farm() as f:
        f.handler.answers = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_soon, f.worker_end)
            with pytest.raises(ConnectionLost) as caught:
                await f.conn.remotePrint("x")
        assert caught.value.maybe_done


async def break_soon(stream):
    await trio.testing.wait_all_tasks_blocked()
    await trio.aclose_forcefully(stream)


async def test_a_start_that_waits_when_the_connection_breaks_is_not_completed():
    async with farm(limits=Limits(resume_grace_s=0)) as f:
        f.handler.answers = trio.Event()
        f.nursery.start_soon(ignore_loss, f.conn.remotePrint, "x")
        await trio.testing.wait_all_tasks_blocked()
        impl = Recorder()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_soon, f.worker_end)
            with pytest.raises(ConnectionLost) as caught:
                await f.start(impl)
        assert caught.value.maybe_done
        await trio.testing.wait_all_tasks_blocked()
        assert impl.completions == []


async def ignore_loss(method, *args):
    with pytest.raises(ConnectionLost):
        await method(*args)


async def test_a_shutdown_whose_connection_ends_has_succeeded():
    async with farm() as f:

        async def shutdown():
            f.worker.loseConnection("shutdown")

        f.handler.shutdown = shutdown
        await f.conn.remoteShutdown()


@pytest.mark.parametrize("name", ["remotePrint", "remoteStartBuild", "remoteSetBuilderList", "remoteGetWorkerInfo"])
async def test_cancelling_a_call_leaves_the_connection_usable(name):
    args = {"remoteSetBuilderList": [[("b", "dir")]], "remoteGetWorkerInfo": []}.get(name, ["b"])
    async with farm() as f:
        f.handler.answers = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(f.conn.remotePrint, "holds up the calls behind it")
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.001) as scope:
                await getattr(f.conn, name)(*args)
            assert scope.cancelled_caught
            f.handler.answers.set()
        await f.conn.remotePrint("after it")
        assert f.handler.calls[-1] == ("print", "after it")


async def test_more_calls_than_the_wire_allows_wait_for_their_turn():
    async with farm() as f:
        async with trio.open_nursery() as nursery:
            for number in range(3000):
                nursery.start_soon(f.conn.remotePrint, str(number))
        assert len([call for call in f.handler.calls if call[0] == "print"]) == 3000


async def test_commands_are_limited():
    async with farm(limits=Limits(commands_max=2)) as f:
        await f.start(Recorder(), "wait", command="1")
        await f.start(Recorder(), "wait", command="2")
        with pytest.raises(LimitExceeded, match="commands_max"):
            await f.start(Recorder(), "wait", command="3")


async def test_many_commands_run_at_once():
    async with farm() as f:
        impls = {str(number): Recorder() for number in range(100)}
        async with trio.open_nursery() as nursery:
            for id_, impl in impls.items():
                nursery.start_soon(lambda impl=impl, id_=id_: f.start(impl, command=id_))
        for impl in impls.values():
            assert await impl.wait_done() is None
            assert impl.raw == b"hello\n"


async def test_an_answer_of_the_wrong_type_is_a_breach():
    async with farm() as f:
        f.handler.info = ["not", "a", "map"]
        with pytest.raises(RemoteProtocolError, match="not a map"):
            await f.conn.remoteGetWorkerInfo()
        assert f.conn.state == "lost"


async def test_statistics_count():
    async with farm() as f:
        before = f.conn.statistics()
        impl = Recorder()
        await f.start(impl, "wait")
        assert f.conn.statistics().commands == 1
        assert f.conn.statistics().bytes_sent > before.bytes_sent
        assert f.conn.statistics().rtt_s is None
        assert await f.conn.answers(5)
        assert f.conn.statistics().rtt_s >= 0


async def test_a_silent_peer_is_pinged_and_lives(autojump_clock):
    async with farm() as f:
        received = f.worker.statistics()["bytes_received"]
        await trio.sleep(1000)
        assert f.conn.state == "attached"
        assert f.worker.statistics()["bytes_received"] > received


async def test_a_dead_peer_is_lost_after_its_timeout(autojump_clock):
    async with farm(limits=Limits(resume_grace_s=0)) as f:
        # The worker's end is deaf and dumb from here on, but the transport does not break.
        async def swallow(data):
            await trio.lowlevel.checkpoint()

        f.worker_end.send_stream.send_all = swallow
        lost_at = []
        f.conn.notifyOnDisconnect(lambda: lost_at.append(trio.current_time()))
        impl = Recorder()
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="no sign of life"):
            await f.start(impl)
        assert 44 <= lost_at[0] - start <= 61
        f.nursery.cancel_scope.cancel()


async def test_a_connection_that_ended_leaves_nothing_behind():
    async with farm() as f:
        impl, writer = Recorder(), Writer()
        await f.start(impl, args={"writer": writer})
        await impl.wait_done()
        kept = weakref.ref(impl)
        del impl
        gc.collect()
        assert kept() is None
