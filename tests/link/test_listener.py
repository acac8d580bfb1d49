"""Who is let in, who wins, and what a stranger on the port does to the others: nothing."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import socket
import ssl
import sys

import pytest
import trio
import trio.testing
import trustme

from tailrace.errors import ConnectionLost, LocalProtocolError, LoginRefused, RemoteProtocolError
from tailrace.limits import Limits
from tailrace.link.dial import dial, dial_stream
from tailrace.link.listener import Listener
from tailrace.messages import Held, HeldCommand

from .farm import SECRET, Handler, Master, Recorder

QUICK = Limits(ping_interval_s=1, ping_timeout_s=3, handshake_timeout_s=2, duplicate_timeout_s=1)


@contextlib.asynccontextmanager
async def serving(master=None, endpoint="tailrace://127.0.0.1:0", **options):
    """A listener that serves for real, and a nursery for the rest."""
    listener = Listener(master or Master(), endpoint, **options)
    listener.updateRegistration("w1", SECRET)
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve)
        yield listener, nursery
        nursery.cancel_scope.cancel()


def worker(listener, nursery, *, name="w1", secret=SECRET, instance="i1", **options):
    return dial(listener.endpoint, name=name, secret=secret, instance=instance, handler=Handler(nursery), **options)


@contextlib.contextmanager
def kept_thresholds():
    before = gc.get_threshold()
    try:
        yield before
    finally:
        gc.set_threshold(*before)


async def test_connections_are_seldom_looked_through_for_cycles_and_a_choice_stays():
    with kept_thresholds():
        gc.set_threshold(700, 11, 10)
        async with serving():
            assert gc.get_threshold() == (700, 11, 1000)
        gc.set_threshold(0, 10, 5000)
        async with serving():
            assert gc.get_threshold() == (0, 10, 5000)


async def run_one_command(conn):
    await conn.remoteSetBuilderList([("b", "dir")])
    impl = Recorder()
    await conn.remoteStartCommand(impl, "b", "1", "hello", {})
    assert await impl.wait_done() is None
    assert impl.raw == b"hello\n"


async def test_over_tcp():
    master = Master()
    async with serving(master) as (listener, nursery):
        assert not listener.endpoint.endswith(":0")
        async with worker(listener, nursery) as connection:
            assert connection.peer == "the-master"
            await run_one_command(master.connections[0])
            assert master.connections[0].peer.startswith("127.0.0.1:")


async def test_over_a_unix_socket(tmp_path):
    master, path = Master(), tmp_path / "socket"
    async with serving(master, f"tailrace+unix://{path}") as (listener, nursery), worker(listener, nursery):
        await run_one_command(master.connections[0])
    assert not path.exists()


async def test_over_tls():
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    master = Master()
    async with serving(master, "tailrace+tls://localhost:0", tls=server) as (listener, nursery):
        async with worker(listener, nursery, tls=client):
            await run_one_command(master.connections[0])
        with pytest.raises(OSError, match="certificate verify failed"):
            async with worker(listener, nursery):
                pass
        async with worker(listener, nursery, tls=client):
            await run_one_command(master.connections[-1])


async def test_wrong_secret_and_unknown_worker_are_refused_in_the_same_words(caplog):
    async with serving() as (listener, nursery):
        refusals = []
        for name, secret in (("w1", "wrong"), ("stranger", SECRET)):
            with pytest.raises(LoginRefused) as caught:
                async with worker(listener, nursery, name=name, secret=secret):
                    pass
            refusals.append(str(caught.value))
        assert refusals[0] == refusals[1]
        assert caught.value.reason == "credentials"
        assert "unknown worker or wrong secret: 'w1'" in caplog.text
        assert listener.statistics().failed == 2


async def test_registrations_change_while_serving():
    async with serving() as (listener, nursery):
        listener.updateRegistration("w2", b"another")
        async with worker(listener, nursery, name="w2", secret="another"):
            listener.updateRegistration("w2", None)
            assert listener.statistics().attached == 1
        with pytest.raises(LoginRefused):
            async with worker(listener, nursery, name="w2", secret="another"):
                pass
        listener.updateRegistration("w1", "new")
        with pytest.raises(LoginRefused):
            async with worker(listener, nursery):
                pass
        async with worker(listener, nursery, secret="new"):
            pass


@pytest.mark.parametrize("secret", ["", "x" * 5000])
def test_a_secret_has_a_length(secret):
    with pytest.raises(LocalProtocolError):
        Listener(Master(), "tailrace://127.0.0.1:0").updateRegistration("w1", secret)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"TAILRACE\x01\xff\xff\xff", b"TAILRACE" + bytes(100)])
async def test_garbage_on_the_port_ends_that_connection_with_a_typed_error(garbage, caplog):
    master = Master()
    async with serving(master) as (listener, nursery):
        host, port = listener.endpoint.removeprefix("tailrace://").split(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(garbage)
        while await stream.receive_some():
            pass
        assert "RemoteProtocolError" in caplog.text
        await stream.aclose()
        async with worker(listener, nursery):
            await run_one_command(master.connections[0])


async def test_garbage_is_told_nothing():
    async with serving() as (listener, _nursery):
        host, port = listener.endpoint.removeprefix("tailrace://").split(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        await stream.aclose()


async def test_garbage_after_the_login_ends_that_connection(caplog):
    caplog.set_level(logging.INFO, logger="tailrace.link")
    async with serving() as (listener, nursery):
        async with worker(listener, nursery) as connection:
            await connection._pump._transport._stream.send_all(b"\x7f\x00\x00\x00")
            why = await connection.wait_closed()
            assert isinstance(why, ConnectionLost)
            assert why.reason == "protocol"
        async with worker(listener, nursery):
            pass


async def test_a_silent_stranger_is_hung_up_on(autojump_clock, caplog):
    listener = Listener(Master(), "tailrace://127.0.0.1:0")
    ours, theirs = trio.testing.memory_stream_pair()
    start = trio.current_time()
    await listener.serve_stream(ours)
    assert trio.current_time() - start == 10
    assert await theirs.receive_some() == b""
    assert "ConnectionLost: no login within 10 s" in caplog.text


async def test_too_many_strangers_are_refused(autojump_clock):
    listener = Listener(Master(), "tailrace://127.0.0.1:0", limits=Limits(handshakes_max=2))
    async with trio.open_nursery() as nursery:
        ends = [trio.testing.memory_stream_pair() for _ in range(3)]
        for ours, _ in ends:
            nursery.start_soon(listener.serve_stream, ours)
        await trio.testing.wait_all_tasks_blocked()
        assert listener.statistics().handshakes == 2
        start = trio.current_time()
        closed = 0
        for _, theirs in ends:
            with trio.move_on_after(0.1):
                closed += await theirs.receive_some() == b""
        assert closed == 1
        assert trio.current_time() - start < 1


async def test_a_master_may_use_the_connection_before_it_takes_it():
    async def script(conn, name):
        await run_one_command(conn)
        return True

    async with serving(Master(script)) as (listener, nursery), worker(listener, nursery):
        assert listener.statistics().accepted == 1


async def test_a_master_may_refuse():
    async def script(conn, name):
        return False

    async with serving(Master(script)) as (listener, nursery):
        with pytest.raises(LoginRefused) as caught:
            async with worker(listener, nursery):
                pass
        assert caught.value.reason == "rejected"
        assert "does not want" in caught.value.text


async def test_a_master_that_raises_has_refused(caplog):
    async def script(conn, name):
        raise KeyError("oops")

    async with serving(Master(script)) as (listener, nursery):
        with pytest.raises(LoginRefused):
            async with worker(listener, nursery):
                pass
        assert "newConnection raised" in caplog.text


async def test_a_worker_that_leaves_during_new_connection_is_no_error(caplog):
    async def script(conn, name):
        conn.loseConnection()
        await conn.remotePrint("x")
        return True

    async with serving(Master(script)) as (listener, nursery):
        with pytest.raises(ConnectionLost):
            async with worker(listener, nursery):
                pass
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_same_instance_wins_at_once():
    master = Master()
    async with serving(master) as (listener, nursery), worker(listener, nursery) as old, worker(listener, nursery):
        why = await old.wait_closed()
        assert why.reason == "duplicate"
        [conn] = master.connections
        assert conn.state == "attached"
        assert listener.statistics().attached == 1
        await run_one_command(conn)


async def test_another_instance_is_refused_while_the_old_one_answers(caplog):
    master = Master()
    async with serving(master) as (listener, nursery):
        async with worker(listener, nursery):
            with pytest.raises(LoginRefused) as caught:
                async with worker(listener, nursery, instance="i2"):
                    pass
            assert caught.value.reason == "duplicate"
            assert "attached from 127.0.0.1" in caught.value.text
            assert "refused (duplicate)" in caplog.text
            await run_one_command(master.connections[0])
        assert len(master.connections) == 1


async def test_another_instance_wins_over_one_that_does_not_answer(autojump_clock):
    master = Master()
    listener = Listener(master, "tailrace://127.0.0.1:0")
    listener.updateRegistration("w1", SECRET)
    async with trio.open_nursery() as nursery:
        handler = Handler(nursery)

        def attach(instance):
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(listener.serve_stream, ours)
            return theirs, dial_stream(theirs, name="w1", secret=SECRET, instance=instance, handler=handler)

        theirs, first = attach("i1")
        async with first:

            async def swallow(data):
                await trio.lowlevel.checkpoint()

            theirs.send_stream.send_all = swallow
            start = trio.current_time()
            _, second = attach("i2")
            async with second:
                assert 5 <= trio.current_time() - start <= 6
                assert [conn.state for conn in master.connections] == ["lost", "attached"]
        nursery.cancel_scope.cancel()


async def test_the_port_is_in_use():
    async with serving() as (listener, _nursery):
        other = Listener(Master(), listener.endpoint)
        with pytest.raises(OSError, match=f"cannot listen on {listener.endpoint}: the port is in use") as caught:
            await other.serve()
        assert caught.value.errno == errno.EADDRINUSE


async def test_a_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(endpoint=f"tailrace+unix://{path}"):
        with pytest.raises(OSError, match="another process listens there"):
            await Listener(Master(), f"tailrace+unix://{path}").serve()
        assert path.exists()


def test_tls_goes_with_its_scheme():
    with pytest.raises(LocalProtocolError, match="needs a certificate"):
        Listener(Master(), "tailrace+tls://127.0.0.1:0")
    with pytest.raises(LocalProtocolError, match=r"tailrace\+tls"):
        Listener(Master(), "tailrace://127.0.0.1:0", tls=ssl.create_default_context())


async def test_cancelling_the_listener_closes_its_connections():
    master = Master()
    async with trio.open_nursery() as outer:
        async with serving(master) as (listener, nursery):
            connection = await outer.start(attached, listener, nursery)
            nursery.cancel_scope.cancel()
        why = await connection.wait_closed()
        assert isinstance(why, ConnectionLost)
        assert master.connections[0].state == "lost"
        outer.cancel_scope.cancel()


async def attached(listener, nursery, *, task_status):
    async with worker(listener, nursery) as connection:
        task_status.started(connection)
        await trio.sleep_forever()


async def test_a_peer_that_is_no_master_is_said_so():
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(RemoteProtocolError):
        async with dial_stream(theirs, name="w1", secret=SECRET, instance="i1", handler=Handler(None)):
            pass


async def test_a_peer_that_says_nothing_is_left(autojump_clock):
    _ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(ConnectionLost, match="did not answer the login within 10 s"):
        async with dial_stream(theirs, name="w1", secret=SECRET, instance="i1", handler=Handler(None)):
            pass


async def test_a_master_that_is_not_there():
    async with serving() as (listener, _):
        endpoint = listener.endpoint
    with pytest.raises(OSError, match=f"cannot connect to {endpoint}: Connection refused") as caught:
        async with dial(endpoint, name="w1", secret=SECRET, instance="i1", handler=Handler(None)):
            pass
    assert caught.value.errno == errno.ECONNREFUSED


async def test_what_the_body_raises_comes_out_as_it_is():
    async with serving() as (listener, nursery):
        with pytest.raises(ZeroDivisionError):
            async with worker(listener, nursery):
                raise ZeroDivisionError
        with trio.move_on_after(0.05) as scope:
            async with worker(listener, nursery):
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_a_master_that_does_not_resume_has_what_is_held_forgotten(monkeypatch):
    held = HeldCommand(command="7", builder="b", name="shell", begin=0, end=9, chain=bytes(32), running=True)
    monkeypatch.setattr(sys.modules["tailrace.link.dial"], "Held", lambda _: Held((held,)))
    async with serving() as (listener, nursery):
        handler = Handler(nursery)
        async with dial(listener.endpoint, name="w1", secret=SECRET, instance="i1", handler=handler):
            with trio.fail_after(5):
                while ("interruptCommand", "", "7", "the master has forgotten it") not in handler.calls:
                    await trio.testing.wait_all_tasks_blocked(0.01)
