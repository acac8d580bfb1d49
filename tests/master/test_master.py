"""The shipped master: workers come and go, commands become runs."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from tailrace.errors import ConnectionLost, LocalProtocolError, RemoteError, StoreError, UnknownCommand
from tailrace.master import config, open_master

from .farm import open_farm


async def greet(order):
    await order.say(stdout="hello\n")
    await order.say(stderr="oops\n")
    await order.end(rc=3, elapsed=0.25)


async def forever(order):
    await order.say(stdout="up\n")
    await order.interrupted.wait()
    await order.end(rc=-1, signal="SIGKILL", failure_reason="interrupted")


async def test_a_run_has_a_log_and_a_result(farm):
    await farm.attach(shell=greet)
    run = await farm.master.start("w1", "shell", {"command": ["echo", "a b"]})
    result = await run.wait()
    assert (result.state, result.rc, result.elapsed, result.failure) == ("complete", 3, 0.25, None)
    assert result.receipt is not None
    assert not result.damaged
    assert [(record.channel, record.data) async for record in run.follow()] == [
        ("stdout", b"hello\n"),
        ("stderr", b"oops\n"),
    ]
    assert [record.data async for record in run.follow(1, "stderr")] == [b"oops\n"]


async def test_the_store_says_the_same(farm):
    await farm.attach(shell=greet)
    run = await farm.master.start("w1", "shell", {"command": ["echo", "a b"]})
    await run.wait()
    info = await farm.master.store.run(run.id)
    assert (info.worker, info.builder, info.command, info.title) == ("w1", None, "shell", "echo 'a b'")
    assert (info.state, info.rc, info.elapsed) == ("complete", 3, 0.25)
    assert info.receipt["agrees"] is True
    assert info.receipt["channels"]["stdout"] == [6, 1, 0, 0]


async def test_a_log_can_be_followed_while_it_grows(farm):
    await farm.attach(shell=forever)
    run = await farm.master.start("w1", "shell", {"command": "x"})
    with trio.fail_after(5):
        async for record in run.follow():
            assert record.data == b"up\n"
            await run.interrupt("enough")
    result = await run.wait()
    assert (result.rc, result.signal, result.reason) == (-1, "SIGKILL", "interrupted")


async def test_an_interrupt_says_why_and_one_after_the_end_is_nothing(farm):
    worker = await farm.attach(shell=forever)
    run = await farm.master.start("w1", "shell", {"command": "x"})
    await run.interrupt("enough")
    await run.wait()
    await run.interrupt("again")
    assert worker.reasons == ["enough"]


async def test_a_refused_command_raises_and_is_written_down_as_failed(farm):
    await farm.attach()
    with pytest.raises(UnknownCommand):
        await farm.master.start("w1", "nonsense", {})
    (info,) = await farm.master.store.runs()
    assert info.state == "complete"
    assert info.failure[0] == "UnknownCommand"
    assert farm.master.roster.attachment("w1").running == 0


@pytest.mark.parametrize(("name", "said"), [("w2", "not attached"), ("w9", "unknown")])
async def test_a_worker_that_is_not_there_is_named(farm, name, said):
    with pytest.raises(LocalProtocolError, match=f"{name}.*{said}"):
        await farm.master.start(name, "shell", {"command": "x"})


async def test_nobody_attached_is_said(farm):
    with pytest.raises(LocalProtocolError, match="no worker is attached"):
        await farm.master.start(None, "shell", {"command": "x"})


async def test_the_least_busy_worker_is_chosen(farm):
    await farm.attach("w1", shell=forever)
    await farm.attach("w2", shell=forever)
    runs = [await farm.master.start(None, "shell", {"command": "x"}) for _ in range(3)]
    assert [run.worker for run in runs] == ["w1", "w2", "w1"]
    await runs[1].interrupt("done")
    await runs[1].wait()
    assert (await farm.master.start(None, "shell", {"command": "x"})).worker == "w2"


async def test_a_worker_that_is_away_is_not_chosen_if_there_is_another(farm):
    await farm.attach("w1", shell=greet)
    await farm.attach("w2", shell=greet)
    away = farm.master.workers["w1"]
    await trio.aclose_forcefully(away._line.pump._transport._stream)
    await trio.testing.wait_all_tasks_blocked()
    assert away.state == "suspended"
    assert [(await farm.master.start(None, "shell", {"command": "x"})).worker for _ in range(2)] == ["w2", "w2"]


async def test_a_builder_is_made_known_once_beside_the_base_directory(farm):
    worker = await farm.attach(shell=greet)
    assert worker.builders == {"~": "."}
    for _ in range(2):
        run = await farm.master.start("w1", "shell", {"command": "x"}, builder="linux")
        await run.wait()
    assert worker.builders == {"~": ".", "linux": "linux"}
    assert worker.orders[run.id].builder == "linux"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
async def test_a_builder_stays_in_the_workers_directory(farm, name):
    await farm.attach(shell=greet)
    with pytest.raises(LocalProtocolError, match="cannot name a builder"):
        await farm.master.start("w1", "shell", {"command": "x"}, builder=name)


async def test_a_worker_that_goes_loses_its_runs_and_may_come_back(farm):
    worker = await farm.attach(shell=forever)
    run = await farm.master.start("w1", "shell", {"command": "x"})
    worker.connection.loseConnection()
    with trio.fail_after(5):
        result = await run.wait()
    assert (result.state, result.rc) == ("lost", None)
    assert result.failure[0] == "ConnectionLost"
    assert (await farm.master.store.run(run.id)).state == "lost"
    assert "w1" not in farm.master.workers
    await farm.attach(shell=greet)
    assert (await (await farm.master.start("w1", "shell", {"command": "x"})).wait()).rc == 3


async def test_a_worker_can_be_registered_and_forgotten_while_serving(farm):
    farm.master.register("w3", "secret of w3")
    worker = await farm.attach("w3", shell=greet)
    farm.master.register("w3", None)
    with trio.fail_after(5):
        await worker.connection.wait_closed()
    assert "w3" not in farm.master.workers


async def test_a_command_that_fails_says_how(farm):
    async def fail(order):
        await order.proxy.callRemote("complete", ("RuntimeError", "broke"))

    await farm.attach(shell=fail)
    result = await (await farm.master.start("w1", "shell", {"command": "x"})).wait()
    assert (result.state, result.rc, result.failure) == ("complete", None, ("RuntimeError", "broke"))


async def test_runs_outlive_their_master(tmp_path):
    async with open_farm(tmp_path) as farm:
        await farm.attach(shell=greet)
        run = await farm.master.start("w1", "shell", {"command": "x"})
        await run.wait()
        identity = farm.master.masterId
    async with open_master(tmp_path) as master:
        assert master.masterId == identity
        assert (await master.store.run("last")).id == run.id
        records = [record.data async for record in master.store.read(run.id)]
    assert records == [b"hello\n", b"oops\n"]


async def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tailrace://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {endpoint}: "):
            async with open_master(tmp_path, listen=[endpoint]):
                pass


async def test_a_directory_has_one_master(tmp_path):
    async with open_master(tmp_path):
        with pytest.raises(StoreError, match="already"):
            async with open_master(tmp_path):
                pass


async def test_a_newer_directory_is_left_alone(tmp_path):
    config.create_master(tmp_path)
    (tmp_path / config.VERSION_FILE).write_text("99\n")
    with pytest.raises(StoreError, match="newer"):
        async with open_master(tmp_path):
            pass


async def test_an_error_of_the_body_comes_out_as_itself():
    with pytest.raises(RemoteError, match="mine"):
        async with open_master():
            raise RemoteError("Mine", "mine")


async def test_starting_on_a_lost_connection_is_a_lost_run(farm):
    async def gone(order):
        await trio.sleep_forever()

    worker = await farm.attach(shell=gone)

    async def hang_up(builder, command, name, args, proxy):
        worker.connection.loseConnection()
        await trio.sleep_forever()

    worker.startCommand = hang_up
    with pytest.raises(ConnectionLost), trio.fail_after(5):
        await farm.master.start("w1", "shell", {"command": "x"})
    (info,) = await farm.master.store.runs()
    assert info.state == "lost"


async def test_a_worker_may_forget_what_is_on_the_disk_and_not_before(tmp_path, monkeypatch):
    forgotten = trio.Event()

    async def once(order):
        await order.say(stdout="hello\n")
        await order.end()
        forgotten.set()

    async with open_farm(tmp_path) as farm:
        committer = farm.master.store._commits
        commit, may_commit = committer.commit, trio.Event()

        async def commit_later():
            await may_commit.wait()
            await commit()

        monkeypatch.setattr(committer, "commit", commit_later)
        await farm.attach(shell=once)
        run = await farm.master.start("w1", "shell", {"command": "x"})
        # The run has ended for who waits: that does not wait for a disk.
        result = await run.wait()
        assert (result.state, result.rc) == ("complete", 0)
        await farm.attach("w2")  # some round trips
        assert not forgotten.is_set()
        assert farm.master.workers["w1"].statistics().commands == 1
        may_commit.set()
        with trio.fail_after(30):
            await forgotten.wait()
        assert (await farm.master.store.run(run.id)).receipt["durable"] == "disk"


async def test_a_relaxed_master_says_so_in_its_receipts(farm):
    await farm.attach(shell=greet)
    run = await farm.master.start("w1", "shell", {"command": "x"})
    await run.wait()
    assert (await farm.master.store.run(run.id)).receipt["durable"] == "relaxed"
