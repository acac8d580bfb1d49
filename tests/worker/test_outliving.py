"""Commands that outlive the worker's process, with real processes: killed, told to end, started anew."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
import trio

from tailrace._core import Journal, decode_value, encode_value
from tailrace.worker import create_worker
from tailrace.worker.label import FILE

from .supervised import alive, descendants
from .test_daemon import Command, Sink
from .test_daemon import serving as listening


class Log(Command):
    """A command's Impl that only keeps a digest of its output."""

    def __init__(self):
        super().__init__()
        self.digest = hashlib.blake2b()
        self.bytes = 0

    async def remote_update(self, updates):
        for record in updates.records:
            if record.channel == "stdout":
                self.digest.update(record)
                self.bytes += len(record)
        self.stderr += updates.get("stderr", "")
        self.updates |= {key: updates[key] for key in updates if key not in ("stdout", "stderr", "header", "log")}
        self._grown.set()
        self._grown = trio.Event()

    async def wait_bytes(self, count):
        with trio.fail_after(60):
            while self.bytes < count:
                await self._grown.wait()


@pytest.fixture
async def farm(tmp_path, nursery):
    async with listening(tmp_path, nursery) as farm:
        create_worker(farm.basedir, masters=[farm.listener.endpoint], name="w", secret="s")
        yield farm
    # A worker that was killed too soon has left what its master has not said it has.
    for supervisor in _supervisors_in(farm):
        for pid in [*descendants(supervisor), supervisor]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def serving(farm, *options):
    """`tailrace worker serve`, killed at the end."""
    command = [sys.executable, "-m", "tailrace", "worker", "serve", str(farm.basedir), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


async def started(conn, name="shell", impl=None, **args):
    impl = impl or Log()
    await conn.remoteStartCommand(impl, "b", f"c{id(impl)}", name, args)
    return impl


def supervisors(farm):
    return sorted(entry for entry in (farm.basedir / ".tailrace").iterdir())


async def wait_until(condition):
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - of other processes
            await trio.sleep(0.01)


BLOCKS = """
import os, sys, time
for number in range(300):
    os.write(1, bytes([number % 251]) * 99_999 + b"\\n")
    if number % 10 == 0:
        time.sleep(0.01)
while not os.path.exists("go"):
    time.sleep(0.01)
os.write(2, b"%d\\n" % os.getppid())
sys.exit(7)
"""


def blocks_digest():
    digest = hashlib.blake2b()
    for number in range(300):
        digest.update(bytes([number % 251]) * 99_999 + b"\n")
    return digest.digest()


async def test_a_killed_worker_loses_nothing(farm):
    """Killed again and again while a child writes on: each time the same supervisor, child and journal."""
    with serving(farm):
        conn = await farm.attached()
        impl = await started(conn, command=[sys.executable, "-I", "-S", "-c", BLOCKS])
        await impl.wait_bytes(1)
        (directory,) = supervisors(farm)
        (supervisor,) = _children(farm)
        (child,) = descendants(supervisor)
    for share in range(1, 6):
        with serving(farm):
            await impl.wait_bytes(share * 5_000_000)
    assert alive(child)
    assert supervisors(farm) == [directory]
    with serving(farm):
        (farm.basedir / "b/go").touch()
        await impl.ended()
        await wait_until(lambda: not alive(supervisor) and supervisors(farm) == [])
    assert (impl.updates["rc"], impl.failure) == (7, None)
    assert impl.bytes == 30_000_000
    assert impl.digest.digest() == blocks_digest()
    assert impl.stderr == f"{supervisor}\n"
    assert "left by an earlier worker in this directory; it goes on" in (farm.basedir / "worker.log").read_text()


async def test_what_a_child_writes_while_no_worker_is_there_is_kept(farm):
    script = "while ! test -e go; do sleep 0.01; done; seq 3000000; echo done > ready; exec sleep 1000"
    with serving(farm):
        impl = await started(await farm.attached(), command=script)
        await wait_until(lambda: _children(farm))
    (farm.basedir / "b/go").touch()
    await wait_until((farm.basedir / "b/ready").exists)
    size = len("".join(f"{number}\n" for number in range(1, 3_000_001)))
    with serving(farm):
        await impl.wait_bytes(size)
        (supervisor,) = _children(farm)
        os.kill(supervisor, signal.SIGTERM)
        await impl.ended()
    assert (
        impl.digest.digest()
        == hashlib.blake2b("".join(f"{number}\n" for number in range(1, 3_000_001)).encode()).digest()
    )
    assert impl.updates["failure_reason"] == "interrupted"


async def test_a_worker_whose_master_is_away_stays_small(farm):
    """Under a child that writes as fast as it can."""
    with (farm.basedir / "tailrace.toml").open("a") as settings:
        settings.write("[limits]\nspool_bytes_max = 100_000_000\n")
    with serving(farm) as worker:
        conn = await farm.attached()
        idle = _memory(worker.pid, "VmHWM")
        impl = await started(conn, command=["cat", "/dev/zero"])
        await impl.wait_bytes(1)
        farm.listener.updateRegistration("w", None)
        conn.loseConnection()
        (directory,) = supervisors(farm)
        await wait_until(lambda: _spooled(directory) > 95_000_000)
        (supervisor,) = _children(farm)
        assert _spooled(directory) <= 100_000_000
        assert _memory(worker.pid, "VmHWM") - idle < 32 << 20
        assert _memory(supervisor, "RssAnon") < 8 << 20
        os.kill(supervisor, signal.SIGKILL)


def _spooled(directory):
    return sum(path.stat().st_size for path in directory.glob("spool.*"))


def _memory(pid, key):
    """VmHWM: the most that a process ever had, what it shares included. RssAnon: what it has for itself."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(f"{key}:"))


async def test_an_interrupt_reaches_a_command_that_was_left(farm):
    with serving(farm):
        conn = await farm.attached()
        impl = await started(conn, command="echo on; exec sleep 1000")
        await impl.wait_bytes(3)
    with serving(farm), trio.fail_after(30):
        await conn.remoteInterruptCommand("b", f"c{id(impl)}", "enough")
        await impl.ended()
    assert (impl.updates["failure_reason"], impl.failure) == ("interrupted", None)


async def test_a_command_of_several_children_says_that_the_worker_was_restarted(farm, monkeypatch):
    (farm.basedir / "b/some").mkdir(parents=True)
    slow = farm.basedir / "bin/cp"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    with serving(farm):
        conn = await farm.attached()
        impl = await started(conn, "cpdir", fromdir="some", todir="copy")
        await wait_until(lambda: _children(farm))
        (supervisor,) = _children(farm)
    with serving(farm):
        assert alive(supervisor)
        for pid in descendants(supervisor):
            os.kill(pid, signal.SIGKILL)
        await impl.ended()
    assert impl.updates["rc"] == -1
    assert impl.failure.type == "WorkerRestarted"


async def test_a_transfer_says_that_the_worker_was_restarted(farm):
    (farm.basedir / "b").mkdir(parents=True)
    (farm.basedir / "b/large").write_bytes(bytes(100_000_000))
    begun = trio.Event()

    class Slow(Sink):
        async def remote_write(self, data):
            begun.set()
            await trio.sleep(0.01)

    with serving(farm):
        conn = await farm.attached()
        arguments = {"workersrc": "large", "writer": Slow(), "maxsize": None, "blocksize": 65536}
        impl = await started(conn, "uploadFile", **arguments)
        with trio.fail_after(20):
            await begun.wait()
    assert len(supervisors(farm)) == 1
    with serving(farm):
        await impl.ended()
        assert impl.failure.type == "WorkerRestarted"
        await (await started(conn, "mkdir", dir="new")).ended()
        await wait_until(lambda: supervisors(farm) == [])
    assert "not done by an earlier worker in this directory" in (farm.basedir / "worker.log").read_text()


@pytest.mark.parametrize("boot", [None, "another"])
async def test_a_supervisor_that_died_with_its_worker_has_a_successor(farm, boot):
    """`boot`: the machine was restarted in between."""
    with serving(farm):
        impl = await started(await farm.attached(), command="seq 2000000; exec sleep 1000")
        await impl.wait_bytes(10)
        (supervisor,) = _children(farm)
        children = descendants(supervisor)
        os.kill(supervisor, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    await wait_until(lambda: not alive(supervisor))
    (directory,) = supervisors(farm)
    if boot is not None:
        label = decode_value(Journal.map(str(directory / "journal.ring")).label)
        (directory / FILE).write_bytes(encode_value({**label, "boot": boot}))
    with serving(farm):
        await impl.ended()
        await wait_until(lambda: supervisors(farm) == [])
    assert impl.failure.type == "SupervisorLost"
    assert ("machine was restarted" in impl.failure.text) == (boot is not None)
    want = hashlib.blake2b("".join(f"{number}\n" for number in range(1, 2_000_001)).encode()[: impl.bytes])
    assert impl.digest.digest() == want.digest()
    assert not any(map(alive, children))


async def test_what_is_not_known_here_is_left_alone_and_said(farm):
    directory = farm.basedir / ".tailrace/later"
    directory.mkdir(parents=True)
    ring = directory / "journal.ring"
    ring.write_bytes(b"TRring\0\x63" + bytes(1 << 20))
    label = {"layout": 99}
    (farm.basedir / ".tailrace/other").mkdir()
    (farm.basedir / ".tailrace/other/journal.ring").touch()
    (farm.basedir / ".tailrace/other/command").write_bytes(encode_value(label))
    with serving(farm):
        impl = await started(await farm.attached(), command=["true"])
        await impl.ended()
    log = (farm.basedir / "worker.log").read_text()
    assert "a journal ring of layout 99, which is not the layout 2 that is known here" in log
    assert "of layout 99, which is not the layout 1 that is known here" in log
    assert ring.exists()


async def test_the_command_of_a_master_that_cannot_come_back_is_ended(farm):
    with serving(farm):
        impl = await started(await farm.attached(), command="echo on; exec sleep 1000")
        await impl.wait_bytes(3)
        (supervisor,) = _children(farm)
    (directory,) = supervisors(farm)
    label = decode_value(Journal.map(str(directory / "journal.ring")).label)
    (directory / FILE).write_bytes(encode_value({**label, "master": ""}))
    with serving(farm):
        await wait_until(lambda: not alive(supervisor))
        await wait_until(lambda: not directory.exists())


def _children(farm):
    """The supervisors of this directory's worker, dead or alive, that have a child."""
    return [pid for pid in _supervisors_in(farm) if descendants(pid)]


def _supervisors_in(farm):
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/comm") as comm:
                if comm.read() != "tailrace-super\n":
                    continue
            links = [os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")]
        except OSError:
            continue
        if any(link.startswith(f"{farm.basedir}/.tailrace/") for link in links):
            found.append(int(entry))
    return found
