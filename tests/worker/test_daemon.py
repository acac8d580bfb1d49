"""A worker's process against a real master's listener, over a real socket."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager

import pytest
import trio

from tailrace.errors import LocalProtocolError, LoginRefused, RemoteError, UnknownCommand
from tailrace.link import FileReaderImpl, FileWriterImpl, Listener, RemoteCommandImpl
from tailrace.worker import create_worker, daemon, run_worker, serve_worker

from .supervised import alive

pytestmark = pytest.mark.usefixtures("_short_pauses")


@pytest.fixture
def _short_pauses(monkeypatch):
    monkeypatch.setattr(daemon, "BACKOFF_FIRST_S", 0.01)


class States(list):
    """What a worker told, and a wait for it to tell something."""

    def __init__(self):
        self._changed = trio.Event()

    def told(self, state):
        self.append(state)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, name, times=1):
        with trio.fail_after(20):
            while sum(state.state == name for state in self) < times:
                await self._changed.wait()


class Farm:
    """A master in the test's own process."""

    def __init__(self, tmp_path, listener):
        self.basedir = tmp_path / "worker"
        self.listener = listener
        self.states = States()
        self._attached, self._attachments = trio.open_memory_channel(10)

    async def newConnection(self, conn, workerName):
        assert workerName == "w"
        await conn.remoteSetBuilderList([("b", "b")])
        self._attached.send_nowait(conn)
        return True

    async def attached(self):
        with trio.fail_after(20):
            return await self._attachments.receive()

    @property
    def settings(self):
        return {
            "master": self.listener.endpoint,
            "name": "w",
            "secret": "s",
            "basedir": self.basedir,
            "on_state": self.states.told,
        }


class Command(RemoteCommandImpl):
    def __init__(self):
        self.stdout = b""
        self.stderr = ""
        self.updates = {}
        self.failure = None
        self.done = trio.Event()
        self._grown = trio.Event()

    async def remote_update(self, updates):
        for record in updates.records:
            if record.channel == "stdout":
                self.stdout += bytes(record)
        self.stderr += updates.get("stderr", "")
        self.updates |= {key: updates[key] for key in updates if key not in ("stdout", "stderr", "header", "log")}
        self._grown.set()
        self._grown = trio.Event()

    async def remote_complete(self, failure=None):
        self.failure = failure
        self.done.set()

    async def ended(self):
        with trio.fail_after(30):
            await self.done.wait()
        return self

    async def wait_for(self, data):
        with trio.fail_after(30):
            while data not in self.stdout:
                await self._grown.wait()


class Sink(FileWriterImpl):
    def __init__(self):
        self.data = b""
        self.calls = []

    async def remote_write(self, data):
        self.data += data

    async def remote_utime(self, accessed_modified):
        self.calls.append("utime")

    async def remote_unpack(self):
        self.calls.append("unpack")

    async def remote_close(self):
        self.calls.append("close")


class Source(FileReaderImpl):
    def __init__(self, data):
        self.data = data

    async def remote_read(self, maxLength):
        piece, self.data = self.data[:maxLength], self.data[maxLength:]
        return piece

    async def remote_close(self):
        pass


@pytest.fixture
async def farm(tmp_path, nursery):
    async with serving(tmp_path, nursery) as farm:
        yield farm


@asynccontextmanager
async def serving(tmp_path, nursery, endpoint="tailrace://127.0.0.1:0"):
    class Late:
        async def newConnection(self, conn, workerName):
            return await farm.newConnection(conn, workerName)

    listener = Listener(Late(), endpoint)
    farm = Farm(tmp_path, listener)
    listener.updateRegistration("w", "s")
    await nursery.start(listener.serve)
    yield farm


@pytest.fixture
async def conn(farm, nursery):
    async def run():
        await run_worker(**farm.settings)

    nursery.start_soon(run)
    return await farm.attached()


_numbers = iter(range(10**6))


async def start(conn, name, **args):
    impl = Command()
    impl.id = f"c{next(_numbers)}"
    await conn.remoteStartCommand(impl, "b", impl.id, name, args)
    return impl


async def run(conn, name, **args):
    return await (await start(conn, name, **args)).ended()


async def test_a_worker_serves_until_it_is_shut_down(farm):
    done = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve():
            await run_worker(**farm.settings, reconnect=False)
            done.set()

        nursery.start_soon(serve)
        conn = await farm.attached()
        impl = await run(conn, "shell", command="echo hello; exit 3")
        assert (impl.stdout, impl.updates["rc"], impl.failure) == (b"hello\n", 3, None)
        await conn.remoteShutdown()
        with trio.fail_after(20):
            await done.wait()
    assert [state.state for state in farm.states] == ["connecting", "attached", "stopped"]
    assert farm.states[1].endpoint == farm.listener.endpoint


async def test_what_the_worker_refuses_is_raised_at_the_master(conn):
    with pytest.raises(UnknownCommand):
        await start(conn, "fly")
    with pytest.raises(RemoteError, match="'command'"):
        await start(conn, "shell")
    assert (await run(conn, "shell", command=["true"])).updates["rc"] == 0


async def test_a_large_output_arrives_whole(conn):
    impl = await run(conn, "shell", command="head -c 20000000 /dev/zero | tr '\\0' x")
    assert len(impl.stdout) == 20_000_000


async def test_a_large_answer_arrives_whole(conn, farm):
    deep = farm.basedir / "b" / "/".join(["x" * 250] * 8)
    deep.mkdir(parents=True)
    for number in range(600):
        os.close(os.open(deep / f"{number:04}", os.O_CREAT))
    impl = await run(conn, "glob", path="**/????")
    assert len(impl.updates["files"]) == 600


async def test_an_interrupt_reaches_the_command(conn):
    impl = await start(conn, "shell", command="echo on; sleep 1000")
    await impl.wait_for(b"on\n")
    await conn.remoteInterruptCommand("b", impl.id, "enough")
    await impl.ended()
    assert (impl.updates["rc"], impl.updates["failure_reason"], impl.failure) == (-1, "interrupted", None)


async def test_files_go_both_ways(conn, farm):
    data = os.urandom(5_000_000)
    assert (await run(conn, "downloadFile", workerdest="x/file", reader=Source(data))).updates["rc"] == 0
    assert farm.basedir.joinpath("b/x/file").read_bytes() == data
    sink = Sink()
    up = await run(conn, "uploadFile", workersrc="x/file", writer=sink, keepstamp=True)
    assert (up.updates["rc"], up.stderr) == (0, "")
    assert (sink.data, sink.calls) == (data, ["utime", "close"])
    tree = Sink()
    assert (await run(conn, "uploadDirectory", workersrc="x", writer=tree)).updates["rc"] == 0
    assert tree.calls == ["unpack", "close"]
    assert (await run(conn, "downloadDirectory", workerdest="y", reader=Source(tree.data))).updates["rc"] == 0
    assert farm.basedir.joinpath("b/y/file").read_bytes() == data


async def test_a_file_that_cannot_be_read_is_rc_1(conn):
    sink = Sink()
    impl = await run(conn, "uploadFile", workersrc="nothing", writer=sink)
    assert impl.updates["rc"] == 1
    assert "No such file" in impl.stderr
    assert sink.calls == []


async def test_a_lost_connection_ends_its_commands_and_the_worker_comes_back(conn, farm, tmp_path):
    marker = tmp_path / "marker"
    script = f"trap 'echo gone > {marker}; exit' INT; echo on; while :; do sleep 0.01; done"
    impl = await start(conn, "shell", command=script, interruptSignal="INT")
    await impl.wait_for(b"on\n")
    conn.loseConnection()
    await impl.ended()
    assert impl.failure is not None
    again = await farm.attached()
    assert again is not conn
    await run(again, "shell", command=f"while ! test -s {marker}; do sleep 0.01; done")
    assert marker.read_text() == "gone\n"
    waiting = next(state for state in farm.states if state.state == "waiting")
    assert waiting.reason


async def test_the_next_master_is_tried_when_one_is_not_there(farm, nursery):
    settings = farm.settings | {"master": ["tailrace+unix:///nowhere/at/all", farm.listener.endpoint]}

    async def serve():
        await run_worker(**settings)

    nursery.start_soon(serve)
    await farm.attached()
    assert [state.state for state in farm.states[:3]] == ["connecting", "waiting", "connecting"]


async def test_a_wrong_secret_is_refused(farm):
    with pytest.raises(LoginRefused) as caught:
        settings = farm.settings | {"secret": "wrong"}
        await run_worker(settings.pop("master"), settings.pop("name"), **settings, reconnect=False)
    assert caught.value.reason == "credentials"


async def test_a_wrong_secret_is_tried_again_and_told(farm):
    async with trio.open_nursery() as nursery:

        async def serve():
            await run_worker(**farm.settings | {"secret": "wrong"})

        nursery.start_soon(serve)
        await farm.states.wait_for("waiting", 3)
        nursery.cancel_scope.cancel()
    assert "check the worker's name and its secret" in farm.states[1].reason


async def test_pauses_grow_to_their_limit_however_long_the_master_is_away(tmp_path, monkeypatch):
    monkeypatch.setattr(daemon, "BACKOFF_FACTOR", 1e300)  # a day of the real one
    monkeypatch.setattr(daemon, "BACKOFF_MAX_S", 0.02)
    states = States()
    async with trio.open_nursery() as nursery:

        async def serve():
            await run_worker(
                master=f"tailrace+unix://{tmp_path}/x",
                name="w",
                secret="s",
                basedir=tmp_path / "w",
                on_state=states.told,
            )

        nursery.start_soon(serve)
        await states.wait_for("waiting", 5)
        nursery.cancel_scope.cancel()
    assert all(state.retry_s <= 0.02 for state in states)


async def test_a_master_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match=r"(?i)no such file|refused"):
        await run_worker(
            master=f"tailrace+unix://{tmp_path}/x", name="w", secret="s", basedir=tmp_path / "w", reconnect=False
        )


async def test_a_directory_serves_one_process(conn, farm):
    with pytest.raises(LocalProtocolError, match="another worker runs here"):
        await run_worker(**farm.settings, reconnect=False)


async def test_no_master_at_all_is_refused(tmp_path):
    with pytest.raises(LocalProtocolError, match="one master at least"):
        await run_worker(master=[], name="w", secret="s", basedir=tmp_path)


# ---------------------------------------------------------------- as a process


@pytest.fixture
async def served(farm, nursery):
    """A worker as `tailrace worker serve` runs it; `served.stopped` is set when it has returned."""
    create_worker(farm.basedir, masters=[farm.listener.endpoint], name="w", secret="s")
    farm.stopped = trio.Event()

    async def serve():
        await serve_worker(farm.basedir, drain_timeout=0.1, announce=farm.states.told)
        farm.stopped.set()

    farm.serve = serve
    nursery.start_soon(serve)
    farm.conn = await farm.attached()
    return farm


async def stopped(served):
    with trio.fail_after(30):
        await served.stopped.wait()


async def test_a_hangup_lets_commands_finish(served, tmp_path):
    go = tmp_path / "go"
    impl = await start(served.conn, "shell", command=f"while ! test -e {go}; do sleep 0.01; done; exit 5")
    os.kill(os.getpid(), signal.SIGHUP)
    await served.states.wait_for("draining")
    with pytest.raises(RemoteError, match="stops soon"):
        await start(served.conn, "shell", command=["true"])
    go.write_text("")
    await impl.ended()
    assert impl.updates["rc"] == 5
    await stopped(served)
    assert served.states[-1].state == "stopped"


async def test_a_terminated_worker_leaves_what_runs_to_the_next(served, nursery, tmp_path, caplog):
    go = tmp_path / "go"
    impl = await start(served.conn, "shell", command=f"echo $PPID; while ! test -e {go}; do sleep 0.01; done; exit 5")
    await impl.wait_for(b"\n")
    os.kill(os.getpid(), signal.SIGTERM)
    await stopped(served)
    assert alive(int(impl.stdout))
    go.write_text("")
    nursery.start_soon(served.serve)
    await impl.ended()
    assert (impl.updates["rc"], impl.failure) == (5, None)
    assert "has died" not in caplog.text


async def test_a_terminated_worker_interrupts_what_needs_it(served):
    stuck = trio.Event()

    class Stuck(FileWriterImpl):
        async def remote_write(self, data):
            stuck.set()
            await trio.sleep_forever()

        async def remote_utime(self, accessed_modified): ...
        async def remote_unpack(self): ...
        async def remote_close(self): ...

    (served.basedir / "b").mkdir(exist_ok=True)
    (served.basedir / "b/large").write_bytes(bytes(50_000_000))
    impl = await start(served.conn, "uploadFile", workersrc="large", writer=Stuck(), maxsize=None, blocksize=1 << 16)
    with trio.fail_after(20):
        await stuck.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await stopped(served)
    await impl.ended()


async def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_silent_master(tmp_path, nursery):
    silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = silent[0].socket.getsockname()[1]
    create_worker(tmp_path / "w", masters=[f"tailrace://127.0.0.1:{port}"], name="w", secret="s")
    states = States()
    done = trio.Event()

    async def serve():
        await serve_worker(tmp_path / "w", announce=states.told)
        done.set()

    nursery.start_soon(serve)
    accepted = await silent[0].accept()
    os.kill(os.getpid(), signal.SIGTERM)
    with trio.fail_after(5):
        await done.wait()
    assert [state.state for state in states] == ["connecting", "draining", "stopped"]
    await accepted.aclose()
    await silent[0].aclose()


async def test_a_malformed_endpoint_is_said_at_once(tmp_path):
    with pytest.raises(LocalProtocolError, match="http"):
        await run_worker(master="http://x", name="w", secret="s", basedir=tmp_path)
