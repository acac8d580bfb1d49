"""The command line as a whole: what is said about wrong ones, and what is loaded for right ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tailrace.cli.failure import Failure, explain

from .fake_master import ENVIRONMENT, serving


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("frobnicate", 2, "frobnicate"),
        ("run", 2, "no command"),
        ("run --bogus -- x", 2, "--bogus"),
        ("run make -j8", 2, "after `--`"),
        ("run --timeout soon -- x", 2, "soon"),
        ("run --env A -- x", 2, "NAME=VALUE"),
        ("logs", 2, "RUN"),
        ("logs last --from-line 0", 2, "--from-line"),
        ("ps", 2, "TAILRACE_DIR"),
        ("ps --dir", 2, "--dir"),
        ("put here nowhere", 2, "NAME:PATH"),
        ("get w1 here", 2, "NAME:PATH"),
        ("--dir /nonexistent/m ps", 125, "tailrace master create"),
        ("run --dir /nonexistent/m -- x", 125, "/nonexistent/m"),
        ("--dir /nonexistent/m show a/b", 125, "a/b"),
    ],
)
def test_what_is_wrong_is_one_line_with_what_to_do(tailrace, line, code, words):
    done = tailrace(*line.split())
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert len(said) == 1
    assert said[0].startswith("tailrace: ")
    assert words in said[0]


def test_a_master_that_does_not_serve(tailrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tailrace.toml").touch()
    monkeypatch.setenv("TAILRACE_DIR", str(tmp_path))
    done = tailrace("ps")
    assert done.returncode == 125
    assert f"tailrace master serve {tmp_path}" in done.stderr


async def test_a_directory_may_be_too_deep_for_a_socket(tmp_path: Path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    async with serving(deep) as master:
        assert (await master.tailrace("workers")).returncode == 0


COMMANDS = ["demo", "run", "logs", "ps", "show", "stop", "put", "get", "workers"]
ALL = [*COMMANDS, "master create", "master add-worker", "master serve", "worker create", "worker serve"]


@pytest.mark.parametrize("command", ALL)
def test_every_command_has_help_with_an_example(tailrace, command):
    done = tailrace(*command.split(), "--help")
    assert done.returncode == 0
    usage, _, rest = done.stdout.partition("\n")
    assert usage.startswith(f"Usage: tailrace {command}")
    assert f"tailrace {command}" in rest


def test_help_is_the_map(tailrace):
    shown = tailrace("--help").stdout
    for command in COMMANDS:
        assert f" {command} " in shown
    assert "TAILRACE_DIR" in shown
    assert shown == tailrace().stdout


def test_a_fault_of_ours_is_a_line_too(capfd):
    assert explain(BaseExceptionGroup("", [ZeroDivisionError("oh\nno")])) == 125
    assert capfd.readouterr().err == (
        "tailrace: a fault of Tailrace: ZeroDivisionError: oh no; TAILRACE_TRACEBACK=1 shows where\n"
    )


def test_of_several_errors_the_one_for_the_user_counts(capfd):
    group = BaseExceptionGroup("", [KeyboardInterrupt(), BaseExceptionGroup("", [Failure("what", "do this", code=1)])])
    assert explain(group) == 1
    assert capfd.readouterr().err == "tailrace: what; do this\n"


def test_an_operating_system_error_says_which_file(capfd):
    assert explain(FileNotFoundError(2, "No such file or directory", "/x/y")) == 125
    assert capfd.readouterr().err == "tailrace: /x/y: No such file or directory\n"


def test_closed_standard_streams_do_no_harm(tmp_path: Path):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m tailrace --dir {tmp_path} ps >&- 2>&-"], env=ENVIRONMENT, capture_output=True
    )
    assert done.returncode == 125
