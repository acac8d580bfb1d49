from __future__ import annotations

import os
import signal

import pytest
import trio
import trio.testing

from tailrace.errors import ConnectionLost, LimitExceeded, RemoteError, UnknownCommand
from tailrace.limits import Limits
from tailrace.worker.config import Manners
from tailrace.worker.supervisor import Supervised

from .supervised import alive

SLEEP = {"command": ["sleep", "1000"]}


async def test_an_unknown_command_is_refused(desk):
    with pytest.raises(UnknownCommand, match="'fly'"):
        await desk.start("fly", {})


async def test_an_unknown_builder_is_refused(desk):
    with pytest.raises(RemoteError, match="'other'"):
        await desk.attachment.startCommand("other", "1", "shell", SLEEP, desk.Report())


async def test_several_commands_run_at_once(desk):
    reports = [await desk.start("shell", {"command": f"echo {n}; sleep 1000"}, command=str(n)) for n in range(5)]
    for number, report in enumerate(reports):
        await report.wait_until(lambda report=report, number=number: report.stdout == f"{number}\n".encode())
    assert desk.worker.commands == 5
    for number, report in enumerate(reports):
        await desk.attachment.interruptCommand("b", str(number), "enough")
        await desk.ended(report)


async def test_more_commands_than_the_limit_are_refused(open_desk, tmp_path):
    async with open_desk(tmp_path / "w", limits=Limits(commands_max=1)) as desk:
        await desk.start("shell", SLEEP)
        with pytest.raises(LimitExceeded, match="limit"):
            await desk.start("shell", SLEEP)


async def test_interrupting_what_is_not_there_is_fine(desk):
    await desk.attachment.interruptCommand("b", "never", "why not")


async def test_a_master_that_goes_takes_its_commands_with_it(desk, tmp_path):
    marker = tmp_path / "marker"
    await desk.start(
        "shell",
        {
            "command": f"trap 'echo gone > {marker}; exit' INT; echo on; while :; do sleep 0.01; done",
            "interruptSignal": "INT",
        },
        report=desk.Report(broken=ConnectionLost()),
    )
    with trio.fail_after(30):
        await desk.worker.wait_idle()
    assert marker.read_text() == "gone\n"


async def test_an_interrupt_that_comes_at_once_is_none_too_early(desk):
    for name, args in (("shell", {"command": ["sleep", "1000"]}), ("rmdir", {"dir": "x"}), ("stat", {"file": "x"})):
        report = await desk.start(name, args)
        await desk.interrupt()
        await desk.ended(report)
        assert report.completed == 1
        assert report.failure is None
        assert name == "stat" or (report.rc, report.updates["failure_reason"]) == (-1, "interrupted")


async def test_a_worker_outlives_a_supervisor(desk):
    await desk.start("shell", {"command": "kill -9 $PPID"})
    with trio.fail_after(30):
        await desk.worker.wait_idle()
    assert (await desk.run("shell", command=["true"])).rc == 0


async def test_a_command_that_does_not_end_is_given_up(desk, monkeypatch):
    monkeypatch.setattr("tailrace.worker.running.STOP_S", 0.05)

    async def do_nothing(_self, _why, *, orphaned):
        del orphaned
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Supervised, "interrupt", do_nothing)
    await desk.start("shell", SLEEP)
    await desk.interrupt()
    with trio.fail_after(30):
        await desk.worker.wait_idle()


async def test_a_command_that_waits_for_its_master_is_not_given_up(desk, monkeypatch):
    monkeypatch.setattr("tailrace.worker.running.STOP_S", 0.5)
    report = await desk.start("shell", {"command": ["yes"]}, report=desk.Report(slow_s=0.2))
    await report.wait_until(lambda: report.batches)
    await desk.interrupt()
    await desk.ended(report)
    assert (report.completed, report.updates["failure_reason"]) == (1, "interrupted")


async def test_a_lost_connection_interrupts_its_commands_only(desk):
    mine = await desk.start("shell", SLEEP)
    other = desk.worker.attachment()
    await other.setBuilderList([("b", "b")])
    theirs = desk.Report()
    await other.startCommand("b", "1", "shell", {"command": "echo on; sleep 1000"}, theirs)
    await desk.attachment.lost("gone")
    await desk.ended(mine)
    await theirs.wait_until(lambda: theirs.stdout == b"on\n")
    assert not theirs.done.is_set()
    await other.interruptCommand("b", "1", "enough")
    await desk.ended(theirs)


async def test_a_drained_worker_takes_nothing_and_ends_when_it_is_idle(desk, nursery):
    report = await desk.start("shell", {"command": "echo on; read line; exit 3", "usePTY": False, "timeout": 1000})
    await report.wait_until(lambda: report.done.is_set() or report.stdout == b"on\n")
    nursery.start_soon(desk.worker.drain)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(RemoteError, match="stops soon"):
        await desk.start("shell", SLEEP)
    await desk.ended(report)
    with trio.fail_after(10):
        await desk.worker.stopped.wait()
    assert report.rc in (1, 3)


async def test_draining_with_a_timeout_interrupts_what_is_left(desk):
    report = await desk.start("shell", SLEEP)
    with trio.fail_after(20):
        await desk.worker.drain(0.05)
    assert desk.worker.stopped.is_set()
    assert report.updates["failure_reason"] == "interrupted"


async def test_shutdown_stops_the_worker(desk):
    await desk.attachment.shutdown()
    assert desk.worker.stopped.is_set()


async def test_builders_get_their_directories(desk):
    names = await desk.attachment.setBuilderList([("one", "deep/one"), ("~", ".")])
    assert names == ["one", "~"]
    assert (desk.basedir / "deep/one").is_dir()
    report = desk.Report()
    await desk.attachment.startCommand("~", "1", "shell", {"command": ["pwd"]}, report)
    await desk.ended(report)
    assert report.stdout == f"{desk.basedir}\n".encode()


@pytest.mark.parametrize("directory", ["../x", "/x", "a/../../x", ".tailrace/x"])
async def test_a_builder_outside_the_worker_is_refused(desk, directory):
    with pytest.raises(RemoteError, match="not below"):
        await desk.attachment.setBuilderList([("evil", directory)])


async def test_a_builder_whose_directory_cannot_be_made_is_an_error(desk):
    (desk.basedir / "file").write_text("")
    with pytest.raises(RemoteError, match="file"):
        await desk.attachment.setBuilderList([("x", "file/x")])


async def test_leftover_directories_go_when_that_was_asked_for(open_desk, tmp_path, monkeypatch):
    asked = trio.Event()

    async def remove_leftovers(basedir, keep):
        assert (basedir, keep) == (tmp_path / "w", {"b", "kept"})
        asked.set()

    async with open_desk(tmp_path / "w", Manners(delete_leftover_dirs=True)) as desk:
        monkeypatch.setattr("tailrace.worker.worker.remove_leftovers", remove_leftovers)
        await desk.attachment.setBuilderList([("b", "b"), ("k", "kept/deep")])
        with trio.fail_after(10):
            await asked.wait()


async def test_nothing_is_left_over_where_a_builder_has_the_whole_directory(open_desk, tmp_path, monkeypatch):
    asked = []

    async def remove_leftovers(basedir, keep):
        asked.append(keep)

    async with open_desk(tmp_path / "w", Manners(delete_leftover_dirs=True)) as desk:
        monkeypatch.setattr("tailrace.worker.worker.remove_leftovers", remove_leftovers)
        await desk.attachment.setBuilderList([("~", ".")])
        await trio.testing.wait_all_tasks_blocked()
    assert asked == []


async def test_leftover_directories_stay_otherwise(desk):
    (desk.basedir / "old").mkdir()
    await desk.attachment.setBuilderList([])
    assert (desk.basedir / "old").is_dir()


async def test_a_fault_in_a_command_is_its_failure_and_the_worker_lives(desk, monkeypatch):
    monkeypatch.setattr("glob.iglob", lambda *_args, **_kw: 1 / 0)
    report = await desk.run("glob", path="*")
    assert report.failure == ("ZeroDivisionError", "division by zero")
    assert (await desk.run("shell", command=["true"])).rc == 0


async def test_the_worker_says_what_it_can(desk):
    found = await desk.attachment.getWorkerInfo()
    assert found["worker_commands"]["shell"] == "3.3"
    assert found["basedir"] == str(desk.basedir)
    await desk.attachment.print("hello")
    await desk.attachment.startBuild("b")


async def test_a_supervisor_that_dies_ends_its_command_and_nothing_else(desk, caplog):
    report = await desk.start("shell", {"command": "echo $PPID $$; exec sleep 1000"})
    await report.wait_until(lambda: b"\n" in report.stdout)
    supervisor, orphan = map(int, report.stdout.split())
    os.kill(supervisor, signal.SIGKILL)
    await desk.ended(report)
    assert report.failure[0] == "SupervisorLost"
    assert not alive(orphan)
    assert "has died" in caplog.text
    assert "Traceback" not in caplog.text
    assert (await desk.run("shell", command=["echo", "next"])).stdout == b"next\n"
