"""Jelly: a closed set of forms, both ways."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import banana_encode
from tailrace.dialects.buildbot.pb.jelly import Failure, JellyError, Local, Opaque, Remote, jelly, remotes, unjelly
from tailrace.errors import LocalProtocolError

from .recordings import NAMES, decode, load, load_units, whole
from .test_banana import value_of

UNITS = load_units("jelly")
SHARED = {"a = [1]; [a, a]": [[1], [1]], "[(), ()]": [(), ()]}


@pytest.mark.parametrize("unit", UNITS["jelly"], ids=lambda unit: unit["what"])
def test_forms_go_both_ways(unit):
    sexp = value_of(unit["sexp"])
    assert banana_encode(sexp) == bytes.fromhex(unit["pb"])
    if "note" not in unit:
        assert banana_encode(jelly(unjelly(sexp))) == bytes.fromhex(unit["pb"])
    elif unit["what"] in SHARED:
        assert unjelly(sexp) == SHARED[unit["what"]]
    else:
        with pytest.raises(JellyError, match="itself"):
            unjelly(sexp)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (Decimal("123.45"), "Decimal('123.45')"),
        (datetime.datetime(2020, 1, 2, 3, 4, 5, 6), "datetime(2020,1,2,3,4,5,6)"),
        (datetime.date(2020, 1, 2), "date(2020,1,2)"),
        (datetime.time(1, 2, 3, 4), "time(1,2,3,4)"),
        (datetime.timedelta(1, 2, 3), "timedelta(1,2,3)"),
        ({7}, "set {7}"),
        (frozenset({7}), "frozenset {7}"),
        ("h\u00e9 \u2603", "str 'h\u00e9 \u2603'"),
        ({b"a": b"x", 2: None}, "dict {b'a': b'x', 2: None}"),
    ],
)
def test_values_are_what_they_were(value, what):
    [unit] = [unit for unit in UNITS["jelly"] if unit["what"] == what]
    assert unjelly(value_of(unit["sexp"])) == value
    assert banana_encode(jelly(value)) == bytes.fromhex(unit["pb"])


@pytest.mark.parametrize("unit", UNITS["unjelly_refused_or_odd"], ids=lambda unit: unit["error"][:60])
def test_what_is_no_value_is_refused(unit):
    sexp = value_of(unit["sexp"])
    if sexp[:1] in ([b"persistent"], [b"unpersistable"]):
        assert isinstance(unjelly(sexp), Opaque)
        return
    with pytest.raises(JellyError):
        unjelly(sexp)


@pytest.mark.parametrize(
    "sexp",
    [
        [b"dictionary", [[b"list"], 1]],  # a key that cannot be one
        [b"set", [b"list"]],
        [b"dereference", 1],
        [b"reference", 1],
        [b"unicode", 5],
        [b"None", 1],
        [b"remote", b"root"],
        [b"remote"],
        [b"decimal", 1.5, 2],
        [b"datetime", b"9" * 10_000],
        [b"date", b"2020 13 1"],
        [b"twisted.spread.pb.CopyableFailure", [b"list"]],
        [b"list", [b"reference", 1, [b"list", [b"dereference", 2]]], [b"reference", 2, [b"list", [b"dereference", 1]]]],
    ],
    ids=repr,
)
def test_malformed_forms_are_refused(sexp):
    with pytest.raises(JellyError):
        unjelly(sexp)


def test_a_dereference_may_come_before_its_reference():
    sexp = [b"list", [b"dereference", 1], [b"reference", 1, [b"list", 5]], [b"dereference", 1]]
    assert unjelly(sexp) == [[5], [5], [5]]


def test_references_do_not_multiply_memory():
    sexp = [b"list", bytes(1000)]
    for number in range(1, 30):
        sexp = [b"list", [b"reference", number, sexp], [b"dereference", number]]
    with pytest.raises(JellyError, match="too large"):
        unjelly(sexp)


def test_a_failure_is_read_whoever_sent_it():
    sexp = [
        b"twisted.spread.pb.CopyableFailure",
        [
            b"dictionary",
            [b"type", b"exceptions.OSError"],
            [b"value", b"no"],
            [[b"unicode", b"parents"], [b"list", b"exceptions.OSError", [b"unicode", b"x.Y"]]],
            [b"stack", [b"unpersistable", b"a frame"]],
        ],
    ]
    failure = unjelly(sexp)
    assert failure == Failure("exceptions.OSError", "no", ("exceptions.OSError", "x.Y"))
    assert failure.is_a("x.Y")
    assert not failure.is_a("x")


def test_a_failure_holds_what_real_peers_need():
    sexp = jelly(Failure("builtins.OSError", "no", ("builtins.OSError", "builtins.Exception")))
    assert unjelly(sexp) == Failure("builtins.OSError", "no", ("builtins.OSError", "builtins.Exception"))
    tag, state = sexp
    fields = {key[1]: value for key, value in state[1:]}
    assert tag == b"twisted.spread.pb.CopyableFailure"
    assert set(fields) == {b"type", b"value", b"parents", b"traceback", b"tb", b"frames", b"stack"}
    assert fields[b"type"] == b"builtins.OSError"
    assert fields[b"tb"] == (b"None",)


@pytest.mark.parametrize("value", [object(), type, len, {1: object()}, Decimal("NaN")], ids=repr)
def test_what_has_no_form_is_not_sent(value):
    with pytest.raises(LocalProtocolError):
        jelly(value)


def test_every_reference_is_found():
    value = ([Remote(1), {"a": Remote(2)}], Remote(1), Local(3), {Remote(4)})
    assert sorted(remote.luid for remote in remotes(value)) == [1, 1, 2, 4]


@pytest.mark.parametrize("name", NAMES)
def test_recorded_values_are_encoded_as_they_came(name):
    packets, _ = load(name)
    for direction in ("m2w", "w2m"):
        for expression in decode(whole(packets, direction), 0)[2:]:
            for sexp in expression[5:] if expression[0] == b"message" else expression[2:]:
                value = unjelly(sexp)
                if b"CopyableFailure" not in repr(sexp).encode() and b"'reference'" not in repr(sexp).encode():
                    assert banana_encode(jelly(value)) == banana_encode(sexp)


SEXPS = st.recursive(
    st.binary(max_size=8)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([b"list", b"tuple", b"dictionary", b"unicode", b"reference", b"dereference", b"set", b"decimal"]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=30,
)


@given(SEXPS)
def test_any_expression_is_a_value_or_refused(sexp):
    try:
        value = unjelly(sexp)
    except JellyError:
        return
    remotes(value)
