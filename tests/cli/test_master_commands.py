"""`tailrace master create` and `add-worker`; serving is tested whole, in tests/whole."""

from __future__ import annotations

import json
from pathlib import Path


def test_a_new_master_listens_on_loopback(tailrace, tmp_path: Path):
    assert tailrace("master", "create", tmp_path / "m").returncode == 0
    assert "tailrace://127.0.0.1:7117" in (tmp_path / "m" / "tailrace.toml").read_text()
    again = tailrace("master", "create", tmp_path / "m")
    assert again.returncode == 125
    assert "in use" in again.stderr


def test_a_bad_endpoint_makes_nothing(tailrace, tmp_path: Path):
    done = tailrace("master", "create", tmp_path / "m", "--listen", "http://x")
    assert done.returncode == 2
    assert "http://x" in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_secret_is_printed_alone(tailrace, tmp_path: Path):
    tailrace("master", "create", tmp_path / "m")
    done = tailrace("master", "add-worker", tmp_path / "m", "w1")
    assert len(done.stdout.split()) == 1
    assert f"w1 {done.stdout}" in (tmp_path / "m" / "accounts").read_text()
    assert json.loads(tailrace("--json", "master", "add-worker", tmp_path / "m", "w2").stdout)["name"] == "w2"


def test_a_secret_file_is_for_its_owner_and_never_another_workers(tailrace, tmp_path: Path):
    tailrace("master", "create", tmp_path / "m")
    file = tmp_path / "secret"
    assert tailrace("master", "add-worker", tmp_path / "m", "w1", "--secret-file", file).stdout == ""
    assert file.stat().st_mode & 0o777 == 0o600
    kept = file.read_text()
    done = tailrace("master", "add-worker", tmp_path / "m", "w2", "--secret-file", file)
    assert done.returncode == 125
    assert file.read_text() == kept


def test_a_worker_that_is_refused_leaves_no_secret_file(tailrace, tmp_path: Path):
    tailrace("master", "create", tmp_path / "m")
    done = tailrace("master", "add-worker", tmp_path / "m", "../w", "--secret-file", tmp_path / "secret")
    assert done.returncode == 125
    assert not (tmp_path / "secret").exists()


async def test_a_serving_master_is_asked(master):
    done = await master.tailrace("master", "add-worker", str(master.directory), "w1")
    assert done.stdout == b"told by the master\n"
    assert ("POST", "/api/workers", {"name": "w1"}) in master.asked
