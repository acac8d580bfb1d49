"""Bad input has a clear end: one line, what and what to do, the right exit code, no traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from .farm import Daemon


def one_line(done, code: int, *words: str) -> None:
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) == 1, text
    for word in words:
        assert word in text


def test_an_unknown_worker(farm):
    one_line(farm.tailrace("run", "--on", "nobody", "--", "true", check=False), 125, "nobody", "tailrace workers")


def test_an_unknown_run(farm):
    one_line(farm.tailrace("show", "zzzz", check=False), 125, "zzzz")


def test_an_unreadable_file(farm, tmp_path):
    one_line(farm.tailrace("put", tmp_path / "nothing", "w1:x", check=False), 125, "nothing")


def test_a_master_that_is_not_there(farm, tmp_path):
    one_line(farm.tailrace("--dir", tmp_path / "void", "ps", check=False), 125, "void")


def test_no_command(farm):
    assert farm.tailrace("run", "--on", "w1", check=False).returncode == 2


def test_an_unknown_option(farm):
    done = farm.tailrace("run", "--colour", "--", "true", check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_port_in_use(farm, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tailrace://127.0.0.1:{taken.getsockname()[1]}"
        farm.tailrace("master", "create", tmp_path / "m", "--listen", url)
        one_line(farm.tailrace("master", "serve", tmp_path / "m", check=False), 125, "in use")


def test_a_state_directory_in_use(farm):
    one_line(farm.tailrace("master", "serve", farm.state, check=False), 125, "already", str(farm.state))


def test_a_state_directory_of_a_newer_version(farm, tmp_path):
    farm.tailrace("master", "create", tmp_path / "m")
    versions = [path for path in (tmp_path / "m").rglob("*version*") if path.is_file()]
    assert versions, "a state directory says its version"
    versions[0].write_text("999\n")
    one_line(farm.tailrace("master", "serve", tmp_path / "m", check=False), 125, "newer")


def test_a_wrong_secret(farm, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    farm.tailrace("worker", "create", tmp_path / "w", "--master", farm.urls[0], "--name", "w1", "--secret-file", secret)
    worker = Daemon("worker", "serve", tmp_path / "w")
    try:
        assert "credentials" in worker.line("refused ")
        assert "credentials" in (tmp_path / "w" / "worker.log").read_text()
    finally:
        worker.stop()


def test_garbage_on_the_port(farm):
    host, port = farm.urls[0].removeprefix("tailrace://").rsplit(":", 1)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"TAILRACE\xff\xff\xff\xff" + b"x" * 100):
        with socket.create_connection((host, int(port)), timeout=15) as stranger:
            stranger.sendall(garbage)
            while stranger.recv(4096):
                pass
    assert farm.tailrace("run", "--on", "w1", "--", "echo", "alive").stdout == b"alive\n"


@pytest.mark.parametrize("url", ["http://x", "tailrace://", "tailrace://host:99999", "pb+unix:///x"])
def test_a_bad_endpoint(farm, tmp_path: Path, url):
    done = farm.tailrace("master", "create", tmp_path / "m", "--listen", url, check=False)
    assert done.returncode in (2, 125)
    assert b"Traceback" not in done.stderr
    assert url.encode() in done.stderr
