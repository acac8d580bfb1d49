from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.errors import RemoteError
from tailrace.worker.commands.command import Arguments
from tailrace.worker.commands.environment import child_environment, environment_changes

WORKDIR = Path("/w/b")


def changed(own, env):
    return child_environment(own, environment_changes(Arguments("shell", {"env": env})), WORKDIR)


def test_the_workers_own_environment_is_the_beginning():
    assert changed({"A": "1"}, None) == {"A": "1", "PWD": "/w/b"}


def test_none_removes_and_a_list_is_joined():
    assert changed({"A": "1", "B": "2"}, {"A": None, "P": ["x", "y"]}) == {"B": "2", "P": "x:y", "PWD": "/w/b"}


def test_references_are_replaced_once_from_the_workers_own():
    own = {"A": "${B}", "B": "b"}
    found = changed(own, {"B": "new", "C": "<${A}|${B}|${NOT}|$B>"})
    assert found["C"] == "<${B}|b||$B>"


def test_the_workers_pythonpath_comes_behind():
    assert changed({"PYTHONPATH": "/own"}, {"PYTHONPATH": ["/a", "/b"]})["PYTHONPATH"] == "/a:/b:/own"
    assert changed({}, {"PYTHONPATH": "/a"})["PYTHONPATH"] == "/a"


def test_a_wrong_value_is_refused_by_its_name():
    with pytest.raises(RemoteError, match="'BAD'"):
        changed({}, {"BAD": 7})
    with pytest.raises(RemoteError, match="'BAD'"):
        changed({}, {"BAD": ["a", 7]})
    with pytest.raises(RemoteError, match="'A=B'"):
        changed({}, {"A=B": "x"})
