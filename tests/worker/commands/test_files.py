from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
import trio

from tailrace.errors import RemoteError
from tailrace.worker.commands import files


async def test_mkdir_makes_parents_and_is_content_with_what_is_there(desk):
    for _ in range(2):
        report = await desk.run("mkdir", dir="a/b/c")
        assert report.rc == 0
        assert report.updates["elapsed"] >= 0
    assert desk.dir.joinpath("a/b/c").is_dir()


async def test_mkdir_takes_a_list_and_stops_at_the_first_error(desk):
    desk.dir.joinpath("file").write_text("")
    report = await desk.run("mkdir", dir=["one", "file", "two"])
    assert report.rc == errno.EEXIST
    assert report.header.count(b"\n") == 1
    assert b"file" in report.header
    assert [path.name for path in sorted(desk.dir.iterdir())] == ["file", "one"]


async def test_stat_gives_the_ten_numbers(desk):
    file = desk.dir / "x" / "file"
    file.parent.mkdir()
    file.write_text("12345")
    report = await desk.run("stat", file="file", workdir="x")
    found = report.updates["stat"]
    assert len(found) == 10
    assert stat.S_ISREG(found[0])
    assert found[6] == 5
    assert tuple(found)[1:] == tuple(os.stat(file))[1:10]


async def test_stat_of_nothing_is_its_errno(desk):
    report = await desk.run("stat", file="nothing")
    assert report.rc == errno.ENOENT
    assert b"nothing: No such file or directory\n" in report.header


async def test_glob_gives_absolute_paths_in_order(desk):
    for name in ("b.o", "a.o", "sub/deep/c.o", "d.c"):
        path = desk.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    report = await desk.run("glob", path="**/*.o")
    assert report.updates["files"] == [f"{desk.dir}/{name}" for name in ("a.o", "b.o", "sub/deep/c.o")]
    assert (await desk.run("glob", path="*.none")).updates["files"] == []


async def test_a_large_glob_is_answered_whole(desk):
    deep = desk.dir / "/".join(["x" * 250] * 8)
    deep.mkdir(parents=True)
    for number in range(400):
        os.close(os.open(deep / f"{number:04}", os.O_CREAT))
    report = await desk.run("glob", path="**/????")
    assert len(report.updates["files"]) == 400
    assert report.rc == 0


async def test_more_names_than_one_answer_holds_are_an_error(desk, monkeypatch):
    monkeypatch.setattr(files, "NAMES_BYTES_MAX", 1000)
    for number in range(5):
        desk.dir.joinpath(f"{number}{'x' * 200}").write_text("")
    report = await desk.run("listdir", dir=".")
    assert report.rc == errno.E2BIG
    assert "files" not in report.updates
    assert b"too many for one answer" in report.header


async def test_listdir_gives_names(desk):
    for name in ("b", "a", ".c"):
        desk.dir.joinpath(name).write_text("")
    assert (await desk.run("listdir", dir=".")).updates["files"] == [".c", "a", "b"]
    assert (await desk.run("listdir", dir="none")).rc == errno.ENOENT


async def test_a_name_that_is_not_utf8_does_no_harm(desk):
    Path(os.fsdecode(os.fsencode(desk.dir) + b"/\xff")).write_text("")
    assert (await desk.run("listdir", dir=".")).updates["files"] == ["\ufffd"]


async def test_rmfile_removes_a_file(desk):
    desk.dir.joinpath("x").write_text("")
    assert (await desk.run("rmfile", path="x")).rc == 0
    assert not desk.dir.joinpath("x").exists()
    assert (await desk.run("rmfile", path="x")).rc == errno.ENOENT


async def test_rmfile_knows_the_home_directory(desk, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    tmp_path.joinpath("x").write_text("")
    assert (await desk.run("rmfile", path="~/x")).rc == 0
    assert not tmp_path.joinpath("x").exists()


async def test_rmdir_removes_trees_files_and_nothing(desk):
    desk.dir.joinpath("a/b").mkdir(parents=True)
    desk.dir.joinpath("file").write_text("")
    report = await desk.run("rmdir", dir=["a", "file", "nothing"])
    assert report.rc == 0
    assert list(desk.dir.iterdir()) == []


async def test_rmdir_removes_what_was_made_read_only(desk):
    inner = desk.dir / "a" / "b"
    inner.mkdir(parents=True)
    inner.joinpath("file").write_text("")
    inner.chmod(0)
    assert (await desk.run("rmdir", dir="a")).rc == 0
    assert not desk.dir.joinpath("a").exists()


async def test_cpdir_copies_links_and_times(desk):
    source = desk.dir / "from"
    source.mkdir()
    source.joinpath("file").write_text("x")
    os.utime(source / "file", (1, 2))
    source.joinpath("link").symlink_to("file")
    report = await desk.run("cpdir", fromdir="from", todir="deep/to")
    copy = desk.dir / "deep/to"
    assert report.rc == 0
    assert f"{source}/file' -> '{copy}/file'".encode() in report.stdout
    assert copy.joinpath("file").stat().st_mtime == 2
    assert copy.joinpath("link").is_symlink()


async def test_cpdir_of_nothing_fails_and_says_why(desk):
    report = await desk.run("cpdir", fromdir="nothing", todir="to")
    assert report.rc == 1
    assert b"nothing" in report.stderr


async def test_cpdir_into_what_is_there_says_so(desk):
    desk.dir.joinpath("from").mkdir()
    desk.dir.joinpath("to").mkdir()
    report = await desk.run("cpdir", fromdir="from", todir="to")
    assert desk.dir.joinpath("to/from").is_dir()
    assert b"is there already" in report.header


async def test_a_thread_that_hangs_is_left_behind_by_an_interrupt(desk, monkeypatch):
    release, entered = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hang(_path):
        token.run_sync_soon(entered.set)
        release.wait(30)
        return []

    monkeypatch.setattr(os, "listdir", hang)
    try:
        report = await desk.start("listdir", {"dir": "."})
        await entered.wait()
        await desk.interrupt()
        await desk.ended(report)
    finally:
        release.set()
    assert (report.rc, report.updates["failure_reason"]) == (-1, "interrupted")
    assert report.completed == 1


@pytest.mark.parametrize(
    ("program", "name", "args"), [("cp", "cpdir", {"fromdir": "x", "todir": "y"}), ("rm", "rmdir", {"dir": ["x", "y"]})]
)
async def test_a_tree_command_that_lasts_is_ended_by_an_interrupt(desk, monkeypatch, tmp_path, program, name, args):
    stand_in = tmp_path / program
    stand_in.write_text("#!/bin/sh\necho begun\nsleep 1000\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    report = await desk.start(name, args)
    await report.wait_until(lambda: report.stdout == b"begun\n")
    await desk.interrupt()
    await desk.ended(report)
    assert (report.rc, report.updates["failure_reason"], report.stdout) == (-1, "interrupted", b"begun\n")


@pytest.mark.parametrize(
    ("name", "args", "word"),
    [
        ("mkdir", {}, "'dir'"),
        ("mkdir", {"dir": ""}, "empty"),
        ("rmdir", {"dir": []}, "empty"),
        ("rmdir", {"dir": 7}, "'dir'"),
        ("cpdir", {"fromdir": "x"}, "'todir'"),
        ("stat", {}, "'file'"),
        ("glob", {}, "'path'"),
        ("listdir", {}, "'dir'"),
        ("rmfile", {}, "'path'"),
    ],
)
async def test_bad_arguments_are_refused_at_the_start(desk, name, args, word):
    with pytest.raises(RemoteError) as caught:
        await desk.start(name, args)
    assert name in caught.value.text
    assert word in caught.value.text


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mkdir", {"dir": "a\0b"}),
        ("rmdir", {"dir": ["a", "a\0b"]}),
        ("stat", {"file": "a\0b"}),
        ("stat", {"file": "a", "workdir": "\0"}),
        ("listdir", {"dir": "a\0b"}),
        ("rmfile", {"path": "a\0b"}),
        ("shell", {"command": "true", "workdir": "a\0b"}),
    ],
)
async def test_a_path_with_a_nul_is_refused(desk, name, args):
    with pytest.raises(RemoteError, match="NUL"):
        await desk.run(name, **args)
