"""`tailrace worker create` and `serve`."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tailrace.cli.worker_serve import Announcer, main
from tailrace.worker.daemon import WorkerState

from .fake_master import ENVIRONMENT

TAILRACE = [sys.executable, "-m", "tailrace"]


@pytest.fixture
def create(tailrace, tmp_path: Path):
    def call(master: str = "tailrace://127.0.0.1:7117", secret: bytes = b"s3cret\n"):
        file = tmp_path / "secret"
        file.write_bytes(secret)
        return tailrace("worker", "create", tmp_path / "w", "--master", master, "--name", "w1", "--secret-file", file)

    return call


def test_a_workers_path_imports_only_trio_and_the_data_library():
    program = (
        "import sys, trio, attrs\n"
        "ours = lambda: {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "before = ours()\n"
        "import tailrace.__main__, tailrace.cli.worker_serve\n"
        "print(*sorted(ours() - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.split() == ["tailrace"]


def test_a_new_workers_directory_is_private(create, tmp_path: Path):
    assert create().returncode == 0
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "w" / "secret").stat().st_mode & 0o777 == 0o600
    assert 'name = "w1"' in (tmp_path / "w" / "tailrace.toml").read_text()
    again = create()
    assert again.returncode == 125
    assert "in use" in again.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"secret": b""}, "no secret"),
        ({"secret": b"two words"}, "more than one word"),
        ({"secret": b"\xff\xfe"}, "no secret"),
        ({"master": "http://x"}, "http://x"),
        ({"master": "tailrace://127.0.0.1:0"}, "port 0"),
    ],
)
def test_what_cannot_be_is_said_when_it_is_made(create, tmp_path: Path, options, words):
    done = create(**options)
    assert done.returncode in (2, 125)
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "w").exists()


def test_a_worker_waits_for_its_master_and_ends_when_told(create, tailrace, tmp_path: Path):
    with socket.socket() as reserved:  # bound, but not listening: nobody else gets this port
        reserved.bind(("127.0.0.1", 0))
        create(master=f"tailrace://127.0.0.1:{reserved.getsockname()[1]}")
        with subprocess.Popen(
            [*TAILRACE, "worker", "serve", tmp_path / "w"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("waiting tailrace://127.0.0.1:")
            assert "refused" in line
            assert tailrace("worker", "serve", tmp_path / "w", "--drain").stdout == f"draining process {process.pid}\n"
            assert process.wait() == 0
    assert "refused" in (tmp_path / "w" / "worker.log").read_text()


def test_sigterm_ends_a_worker_without_a_word_of_complaint(create, tmp_path: Path):
    create(master="tailrace+unix:///nonexistent/socket")
    with subprocess.Popen(
        [*TAILRACE, "worker", "serve", tmp_path / "w"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 0
    assert errors == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothere"], 125, "tailrace worker create"),
        ([], 2, "directory"),
        (["w", "--bogus"], 2, "--bogus"),
        (["w", "--drain-timeout", "-1"], 2, "--drain-timeout"),
        (["nothere", "--drain"], 125, "no worker serves"),
    ],
)
def test_wrong_calls_are_one_line(capfd, monkeypatch, tmp_path: Path, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    said = capfd.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


def test_what_does_not_change_is_said_once(capfd):
    announcer = Announcer()
    for state in ("connecting", "waiting", "connecting", "waiting", "attached"):
        announcer.announce(WorkerState(state=state, endpoint="tailrace://m:1", reason="no", retry_s=1))  # type: ignore[arg-type]
    assert capfd.readouterr().out == "waiting tailrace://m:1: no\nattached tailrace://m:1\n"


def test_a_refusal_is_called_one(capfd):
    Announcer().announce(WorkerState(state="waiting", endpoint="u", reason="login refused (credentials): who are you"))
    assert capfd.readouterr().out == "refused u: login refused (credentials): who are you\n"


def test_a_worker_serves_on_when_nobody_reads_its_lines(create, tmp_path: Path):
    create(master="tailrace+unix:///nonexistent/socket")
    with subprocess.Popen(
        [*TAILRACE, "worker", "serve", tmp_path / "w"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"waiting ")
        process.stdout.close()
        process.send_signal(signal.SIGTERM)  # it says that, too
        assert process.wait() == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
