from __future__ import annotations

import os

from tailrace.worker.config import Manners
from tailrace.worker.info import reported_environment, worker_info


def test_the_keys_that_masters_look_at_are_there(tmp_path):
    found = worker_info(tmp_path, Manners())
    assert found["system"] == "posix"
    assert found["basedir"] == str(tmp_path)
    assert found["numcpus"] == len(os.sched_getaffinity(0))
    assert found["environ"]["PATH"] == os.environ["PATH"]
    assert found["delete_leftover_dirs"] is False
    assert found["encoding"] == "utf-8"
    assert set(found["worker_commands"].values()) == {"3.3"}
    assert found["version"]
    assert found["os_id"]


def test_notes_are_told_by_file_name(tmp_path):
    info = tmp_path / "info"
    info.joinpath("sub").mkdir(parents=True)
    info.joinpath("admin").write_text("Ada <ada@example.org>\n")
    info.joinpath("host").write_bytes(b"caf\xe9\n")
    found = worker_info(tmp_path, Manners())
    assert found["admin"] == "Ada <ada@example.org>"
    assert found["host"] == "caf\ufffd"
    assert "sub" not in found


def test_notes_cannot_stand_in_for_facts(tmp_path):
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "basedir").write_text("/etc")
    assert worker_info(tmp_path, Manners())["basedir"] == str(tmp_path)


def test_the_number_of_cpus_can_be_set(tmp_path):
    assert worker_info(tmp_path, Manners(numcpus=7))["numcpus"] == 7


def test_variables_that_look_like_secrets_are_left_out():
    environ = {
        "PATH": "/bin",
        "KEYBOARD": "de",
        "API_KEY": "x",
        "GITHUB_TOKEN": "x",
        "DB_PASSWORD": "x",
        "aws_secret": "x",
    }
    assert set(reported_environment(environ, Manners())) == {"PATH", "KEYBOARD"}
    assert len(reported_environment(environ, Manners(report_environ="all"))) == 6
    assert reported_environment(environ, Manners(report_environ="none")) == {}
