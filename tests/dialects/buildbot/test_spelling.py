"""Buildbot's names, arguments and update values."""

from __future__ import annotations

import subprocess

import pytest

from tailrace.dialects.buildbot.calls import Item
from tailrace.dialects.buildbot.spelling import (
    Place,
    checked_item,
    from_msgpack,
    has_hidden,
    hide,
    to_msgpack,
    with_defaults,
)
from tailrace.errors import LocalProtocolError

PLACE = Place(basedir="/w", home="/home/w")

THERE_AND_BACK = [
    ("mkdir", {"dir": "a"}, {"paths": ["/w/b/a"]}),
    ("mkdir", {"dir": ["a", "/x"]}, {"paths": ["/w/b/a", "/x"]}),
    ("rmdir", {"dir": "a", "timeout": 5}, {"paths": ["/w/b/a"], "timeout": 5}),
    ("cpdir", {"fromdir": "a", "todir": "c"}, {"from_path": "/w/b/a", "to_path": "/w/b/c"}),
    ("stat", {"file": "f", "workdir": "build"}, {"path": "/w/b/build/f"}),
    ("glob", {"path": "*.txt"}, {"path": "/w/b/*.txt"}),
    ("listdir", {"dir": "."}, {"path": "/w/b"}),
    ("rmfile", {"path": "~/f"}, {"path": "/home/w/f"}),
    ("uploadFile", {"workersrc": "f", "workdir": "build"}, {"path": "/w/b/build/f"}),
    ("uploadDirectory", {"workersrc": "d"}, {"path": "/w/b/d"}),
    ("downloadFile", {"workerdest": "~", "workdir": "build"}, {"path": "/home/w"}),
    ("downloadDirectory", {"workerdest": "d"}, {"path": "/w/b/d"}),
    ("shell", {"command": "x", "workdir": "build"}, {"command": "x", "workdir": "/w/b/build"}),
    ("shell", {"command": "x"}, {"command": "x", "workdir": "/w/b"}),
]


@pytest.mark.parametrize(("name", "ours", "theirs"), THERE_AND_BACK)
def test_paths_are_absolute_there(name, ours, theirs):
    there, args = to_msgpack(name, ours, "b", PLACE)
    assert {key: args[key] for key in theirs} == theirs
    back, args, _ = from_msgpack(there, args)
    assert back == name
    assert not {"paths", "from_path", "to_path"} & args.keys()
    assert name == "shell" or "workdir" not in args


def test_a_path_is_text():
    with pytest.raises(LocalProtocolError):
        to_msgpack("stat", {"file": 5}, "b", PLACE)


def test_a_worker_that_says_nothing_of_itself_gets_relative_paths():
    assert to_msgpack("stat", {"file": "f"}, "b", Place.of_info({}))[1]["path"] == "b/f"


def test_what_buildbots_worker_needs_is_always_there():
    assert with_defaults("uploadFile", {"maxsize": 5}).items() >= {"maxsize": 5, "keepstamp": False}.items()
    assert with_defaults("uploadDirectory", {"compress": "gz"})["compress"] is None
    assert with_defaults("downloadFile", {"blocksize": 1 << 30})["blocksize"] == 512 << 10
    assert with_defaults("shell", {"usePTY": 0})["usePTY"] is False
    assert with_defaults("unheard", {"a": 1}) == {"a": 1}


def test_hidden_words_reach_the_program_and_nothing_else(tmp_path):
    words = ["/bin/sh", "-c", 'printf "%s|" "$@"; env', "sh", ("obfuscated", "a b'\"$HOME\n", "***"), "$x"]
    args = {"command": words, "env": {"PATH": "/usr/bin:/bin"}}
    assert has_hidden(args)
    hidden = hide(args, PLACE)
    assert "a b" not in str(hidden["command"])
    assert hidden["logEnviron"] is False
    done = subprocess.run(hidden["command"], env=hidden["env"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("a b'\"$HOME\n|$x|")
    assert "TAILRACE_WORD" not in done.stdout


def test_a_command_line_without_hidden_words():
    assert not has_hidden({"command": "login secret"})
    assert not has_hidden({"command": ["login", "x"]})
    assert not has_hidden({})


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [
        ("rc", 3, 3),
        ("elapsed", 1, 1.0),
        ("failure_reason", b"timeout", "timeout"),
        ("got_revision", 17, "17"),
        ("got_revision", None, ""),
        ("repo_downloaded", "a/1 b2 c/3 d4", ["a/1", "b2", "c/3", "d4"]),
        ("files", ("a", b"b"), ["a", "b"]),
        ("stat", tuple(range(10)), list(range(10))),
        ("unheard", {"a": 1}, {"a": 1}),
    ],
)
def test_update_values_are_ours(key, value, ours):
    assert checked_item(key, value) == Item(key, ours)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rc", None), ("rc", True), ("rc", "0"), ("elapsed", "1"), ("files", "a"), ("files", [1]), ("stat", [1, 2])],
)
def test_update_values_that_are_none(key, value):
    with pytest.raises(ValueError, match=key):
        checked_item(key, value)
