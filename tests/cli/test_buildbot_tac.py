from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tailrace.cli.buildbot_line import buildbot_line
from tailrace.cli.buildbot_tac import read_buildbot_tac
from tailrace.cli.failure import Failure
from tailrace.cli.worker import create
from tailrace.link.endpoint import Endpoint

TAC = """
import os
from buildbot_worker.bot import Worker
open({witness!r}, "w").close()
basedir = os.path.abspath(os.path.dirname(__file__))
buildmaster_host = 'build.example'
port = 9989
connection_string = None
workername = 'we ird'
passwd = "pa'ss"
use_tls = 0
delete_leftover_dirs = 1
proxy_connection_string = None
protocol = 'pb'
s = Worker(buildmaster_host, port, workername, passwd, basedir, 600)
"""


@pytest.fixture
def tac(tmp_path: Path):
    def write(**changes: str) -> Path:
        text = TAC.format(witness=str(tmp_path / "executed"))
        lines = [line for line in text.splitlines() if line.split(" =")[0] not in changes]
        lines += [f"{name} = {value}" for name, value in changes.items() if value]
        path = tmp_path / "buildbot.tac"
        path.write_text("\n".join(lines))
        return path

    yield write
    assert not (tmp_path / "executed").exists()


def test_it_is_read_and_not_executed(tac):
    found = read_buildbot_tac(tac())
    assert found.master == "pb://build.example:9989"
    assert (found.name, found.password, found.delete_leftover_dirs) == ("we ird", "pa'ss", True)
    assert "pa'ss" not in repr(found)


@pytest.mark.parametrize(
    ("changes", "master"),
    [
        ({"protocol": "'msgpack_experimental_v7'"}, "msgpack://build.example:9989"),
        ({"use_tls": "1"}, "pb+tls://build.example:9989"),
        ({"protocol": ""}, "pb://build.example:9989"),
        ({"buildmaster_host": "'::1'"}, "pb://[::1]:9989"),
        ({"connection_string": "'tls:other.example:4711'"}, "pb+tls://other.example:4711"),
        ({"connection_string": "'ssl:host=other.example:port=1:trustRoots=/etc'"}, "pb+tls://other.example:1"),
    ],
)
def test_where_the_master_is(tac, changes, master):
    assert read_buildbot_tac(tac(**changes)).master == master


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"passwd": "open('secret').read()"}, "passwd"),
        ({"workername": ""}, "workername"),
        ({"port": "'9989'"}, "port"),
        ({"protocol": "'null'"}, "does not speak the protocol 'null'"),
        ({"connection_string": "'unix:/socket'"}, "not of the kind"),
        ({"proxy_connection_string": "'tcp:proxy:3128'"}, "proxy"),
        ({"broken": "("}, "not a Python file"),
    ],
)
def test_what_it_does_not_say_in_so_many_words(tac, changes, why):
    with pytest.raises(Failure, match=why) as caught:
        read_buildbot_tac(tac(**changes))
    assert "--master" in str(caught.value)


def test_an_old_worker_was_a_slave(tac):
    path = tac(workername="")
    path.write_text(path.read_text() + "\nslavename = 'old'\n")
    assert read_buildbot_tac(path).name == "old"


def test_a_worker_is_made_of_it_in_its_own_directory(tac, tmp_path):
    path = tac()
    assert create(tmp_path, buildbot_tac=path) == 0
    settings = tomllib.loads((tmp_path / "tailrace.toml").read_text())["worker"]
    assert settings["masters"] == ["pb://build.example:9989"]
    assert settings["name"] == "we ird"
    assert settings["delete_leftover_dirs"] is True
    assert (tmp_path / "secret").read_text() == "pa'ss\n"


def test_options_go_before_it(tac, tmp_path):
    create(tmp_path / "new", master=["tailrace://new.example:1"], name="w2", buildbot_tac=tac())
    settings = tomllib.loads((tmp_path / "new" / "tailrace.toml").read_text())["worker"]
    assert (settings["masters"], settings["name"]) == (["tailrace://new.example:1"], "w2")


def test_without_it_the_rest_must_be_given(tmp_path):
    with pytest.raises(Failure, match="--master, --secret-file must be given"):
        create(tmp_path / "new", name="w1")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("tailrace://host:1", None),
        ("pb://host:9989", "buildbot-worker create-worker DIR host:9989 NAME SECRET"),
        ("pb+tls://host:0", "buildbot-worker create-worker --use-tls DIR host:PORT NAME SECRET"),
        (
            "msgpack://host:80",
            "buildbot-worker create-worker --protocol=msgpack_experimental_v7 DIR host:80 NAME SECRET",
        ),
        (
            "pb://[::1]:9989",
            "buildbot-worker create-worker --connection-string='tcp:host=\\:\\:1:port=9989' DIR localhost NAME SECRET",
        ),
    ],
)
def test_the_line_to_type(url, line, monkeypatch):
    monkeypatch.setattr("tailrace.link.endpoint.DIALECTS", dict.fromkeys(["tailrace", "pb", "msgpack"]))
    assert buildbot_line(Endpoint.parse(url)) == line
