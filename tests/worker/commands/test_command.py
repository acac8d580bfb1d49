from __future__ import annotations

import pytest

from tailrace.errors import RemoteError
from tailrace.worker.commands.command import Arguments, Context


def arguments(**values):
    return Arguments("shell", values)


def refused(read, *words):
    with pytest.raises(RemoteError) as caught:
        read()
    for word in ("shell", *words):
        assert word in caught.value.text
    return caught.value.type


def test_a_missing_argument_is_refused_by_its_name():
    assert refused(lambda: arguments().text("workdir"), "'workdir'", "missing") == "MissingArgument"
    assert refused(lambda: arguments(workdir=None).raw("workdir"), "'workdir'") == "MissingArgument"


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (lambda found: found.text("x"), 3, "a string"),
        (lambda found: found.flag("x", True), "yes", "true or false"),
        (lambda found: found.strict_flag("x", False), 1, "exactly true or false"),
        (lambda found: found.seconds("x"), "3", "seconds"),
        (lambda found: found.seconds("x"), -1, "seconds"),
        (lambda found: found.seconds("x"), float("nan"), "seconds"),
        (lambda found: found.seconds("x"), True, "seconds"),
        (lambda found: found.count("x"), 1.5, "a whole number"),
        (lambda found: found.count("x"), -1, "a whole number"),
        (lambda found: found.texts("x"), ["a", 1], "list of strings"),
        (lambda found: found.mapping("x"), ["a"], "a mapping"),
        (lambda found: found.mapping("x"), {1: "a"}, "a mapping"),
        (lambda found: found.data("x"), 7, "a string"),
    ],
)
def test_a_wrong_type_is_refused_with_what_was_expected(read, value, expected):
    assert refused(lambda: read(arguments(x=value)), "'x'", expected) == "WrongArgument"


def test_what_is_not_given_has_its_default():
    found = arguments(none=None)
    assert found.text("x", "y") == "y"
    assert found.flag("none", True) is True
    assert found.seconds("x", 120) == 120
    assert found.seconds("none", 120) is None
    assert found.count("x") is None
    assert found.mapping("x") == {}
    assert found.data("x") is None
    assert found.optional_text("x") is None


def test_numbers_stand_for_flags():
    assert arguments(x=0).flag("x", True) is False
    assert arguments(x=1).flag("x", False) is True


def test_of_two_spellings_the_one_that_is_there_counts():
    assert arguments(slavesrc="a").either("workersrc", "slavesrc") == "slavesrc"
    assert arguments().either("workersrc", "slavesrc") == "workersrc"


def test_a_value_that_may_hold_secrets_is_not_repeated():
    with pytest.raises(RemoteError) as caught:
        arguments(x=[("obfuscated", "hunter2", "***")]).text("x")
    assert "hunter2" not in str(caught.value)


def test_relative_paths_begin_in_the_builders_directory(tmp_path):
    context = Context(command="1", name="stat", basedir=tmp_path, builder_dir=tmp_path / "b", args={})
    assert context.path("x", "y") == tmp_path / "b/x/y"
    assert context.path(".", "y") == tmp_path / "b/y"
    assert str(context.path("x", "/y")) == "/y"
