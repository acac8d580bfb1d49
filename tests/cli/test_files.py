"""`tailrace put` and `get`: whole or not at all, and said why."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tailrace.cli.failure import Failure
from tailrace.cli.files import place


def test_a_place_is_a_worker_and_a_path():
    assert place("w1:a/b:c") == ("w1", "a/b:c")
    for wrong in ("w1", ":x", "a/b:c"):
        with pytest.raises(Failure, match="NAME:PATH"):
            place(wrong)


async def test_a_file_goes_with_its_mode(master, tmp_path: Path):
    source = tmp_path / "s"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o750)
    done = await master.tailrace("put", str(source), "w1:there/s")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert master.body == source.read_bytes()
    assert master.asked[-1][2] == {"worker": "w1", "path": "there/s", "kind": "file", "mode": str(0o750)}


@pytest.mark.parametrize(("target", "path"), [("w1:", "s"), ("w1:d/", "d/s")])
async def test_a_target_that_is_a_directory_gets_the_name(master, tmp_path: Path, target, path):
    (tmp_path / "s").touch()
    assert (await master.tailrace("put", str(tmp_path / "s"), target)).returncode == 0
    assert master.asked[-1][2]["path"] == path


async def test_a_directory_goes_as_a_tar_stream(master, tmp_path: Path):
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "b").write_bytes(b"data")
    assert (await master.tailrace("put", str(tmp_path / "tree"), "w1:t")).returncode == 0
    assert master.asked[-1][2]["kind"] == "tree"
    with tarfile.open(fileobj=io.BytesIO(master.body)) as archive:
        assert archive.extractfile("a/b").read() == b"data"


async def test_what_the_worker_says_against_it_is_the_reason(master, tmp_path: Path):
    (tmp_path / "s").touch()
    master.refusal = "no space left on device"
    done = await master.tailrace("put", str(tmp_path / "s"), "w1:x")
    assert done.returncode == 1
    assert b"no space left on device" in done.stderr


async def test_what_is_not_there_to_send_is_said_before_anything_is_asked(master, tmp_path: Path):
    done = await master.tailrace("put", str(tmp_path / "none"), "w1:x")
    assert done.returncode == 125
    assert b"none" in done.stderr
    assert master.asked == []


async def test_a_file_comes_into_a_directory_that_is_made(master, tmp_path: Path):
    master.body = os.urandom(3_000_000)
    target = tmp_path / "new" / "dir" / "file"
    done = await master.tailrace("get", "w1:x", str(target))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert target.read_bytes() == master.body


async def test_into_a_directory_that_is_there(master, tmp_path: Path):
    master.body = b"data"
    assert (await master.tailrace("get", "w1:some/x", str(tmp_path))).returncode == 0
    assert (tmp_path / "x").read_bytes() == b"data"


async def test_a_transfer_that_breaks_off_leaves_the_old_file(master, tmp_path: Path):
    target = tmp_path / "file"
    target.write_text("old")
    master.body, master.run.breaks = b"new" * 1000, True
    done = await master.tailrace("get", "w1:x", str(target))
    assert done.returncode == 1
    assert b"broke off" in done.stderr
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "master"]


async def test_what_cannot_be_written_here_is_said(master, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    done = await master.tailrace("get", "w1:x", str(tmp_path / "file" / "x"))
    assert done.returncode == 1
    assert b"tailrace: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
