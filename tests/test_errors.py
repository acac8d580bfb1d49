"""The taxonomy, as it is drawn at the top of `errors.py`."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from tailrace import errors

TREE = re.findall(r"^( *)\* `(\w+)`", errors.__doc__, re.MULTILINE)


def test_the_tree_at_the_top_is_the_tree():
    parents = {}
    path = []
    for indent, name in TREE:
        del path[len(indent) // 4 :]
        parents[name] = path[-1] if path else "Exception"
        path.append(name)
    classes = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls)}
    assert {name: cls.__base__.__name__ for name, cls in classes.items()} == parents


@pytest.mark.parametrize("name", ["LocalProtocolError", "RemoteProtocolError", "LimitExceeded", "StoreError"])
def test_what_the_binary_raises_is_made_of_one_string(name):
    assert str(getattr(errors, name)("what it says")) == "what it says"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.ConnectionLost("it broke"), "it broke"),
        (errors.ConnectionLost("it broke", maybe_done=True), "it broke (the call may have been carried out)"),
        (errors.LoginRefused("duplicate", "w1 is there"), "login refused (duplicate): w1 is there"),
        (errors.RemoteError("OSError", "disk full"), "OSError: disk full"),
        (errors.UnknownCommand("no command 'x'"), "UnknownCommand: no command 'x'"),
        (errors.Unsupported("pb", "offsets"), "pb: offsets"),
    ],
)
def test_fields_make_the_sentence(error, text):
    assert str(error) == text
    assert str(copy.copy(error)) == str(pickle.loads(pickle.dumps(error))) == text


def test_a_remote_error_comes_back_as_its_class():
    assert isinstance(errors.remote_error("UnknownCommand", "x"), errors.UnknownCommand)
    assert isinstance(errors.remote_error("CommandIdInUse", "x"), errors.CommandIdInUse)
    assert errors.remote_error("ValueError", "x").type == "ValueError"


def test_what_crosses_the_wire_is_one_line():
    assert errors.describe(ValueError("two\n  lines")) == ("ValueError", "two lines")
    assert errors.describe(ValueError("a name of bytes: \udcff")) == ("ValueError", "a name of bytes: ?")
    assert errors.describe(errors.RemoteError("OSError", "x")) == ("OSError", "x")
    assert len(errors.describe(ValueError("x" * 10_000))[1]) == 1000
