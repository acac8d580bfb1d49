"""Calls ⇄ messages: what is encoded is decoded to the same, and PROTOCOL.md's table is the whole of it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import decode_value, encode_value
from tailrace.dialects.native.codec import decode_request, encode_request
from tailrace.errors import RemoteProtocolError, Unsupported
from tailrace.messages import (
    ForgetCommand,
    GetWorkerInfo,
    Held,
    HeldCommand,
    InterruptCommand,
    Print,
    ResumeCommand,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
)

PROTOCOL = Path(__file__).parents[3] / "rust/core/PROTOCOL.md"
OFFSETS = st.integers(0, 2**62)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
IMPLS = st.dictionaries(st.text(), st.sampled_from(["FileWriter", "FileReader"]), max_size=2)
TO_WORKER = st.one_of(
    st.builds(Print, st.text()),
    st.builds(GetWorkerInfo),
    st.builds(SetBuilderList, st.lists(st.tuples(st.text(), st.text())).map(tuple)),
    st.builds(StartBuild, st.text()),
    st.builds(
        StartCommand,
        builder=st.text(),
        command=st.text(),
        name=st.text(),
        args=st.dictionaries(st.text(), VALUES, max_size=4),
        impls=IMPLS,
    ),
    st.builds(InterruptCommand, st.text(), st.text(), st.text()),
    st.builds(Shutdown),
    st.builds(ResumeCommand, st.text(), OFFSETS, st.binary(min_size=32, max_size=32)),
    st.builds(ForgetCommand, st.text()),
)
HELD = st.builds(
    HeldCommand,
    command=st.text(),
    builder=st.text(),
    name=st.text(),
    begin=OFFSETS,
    end=OFFSETS,
    chain=st.binary(),
    running=st.booleans(),
)
TO_MASTER = st.builds(Held, st.lists(HELD, max_size=3).map(tuple))


def over_the_wire(role, request):
    method, args = encode_request(request)
    return decode_request(role, method, decode_value(encode_value(args)))


@given(TO_WORKER)
def test_what_a_master_says_a_worker_hears(request):
    assert over_the_wire("worker", request) == request


@given(TO_MASTER)
def test_what_a_worker_says_a_master_hears(request):
    assert over_the_wire("master", request) == request


@given(st.sampled_from(["worker", "master"]), st.text() | st.sampled_from(["startCommand", "held", "print"]), VALUES)
def test_any_other_call_is_refused_by_a_typed_error(role, method, value):
    args = value if isinstance(value, dict) else {"builders": value, "commands": value, "impls": value}
    with contextlib.suppress(RemoteProtocolError, Unsupported):
        decode_request(role, method, args)


@pytest.mark.parametrize(("role", "heading"), [("worker", "Master to worker:"), ("master", "Worker to master:")])
def test_the_methods_are_those_of_the_protocol(role, heading):
    table = PROTOCOL.read_text().split(heading)[1].split("\n\n")[1]
    for method in re.findall(r"^\| `(\w+)`", table, re.MULTILINE):
        with pytest.raises(RemoteProtocolError) if method not in ("getWorkerInfo", "shutdown") else nothing():
            decode_request(role, method, {})


class nothing:
    def __enter__(self):
        pass

    def __exit__(self, *exc):
        pass


def test_unknown_keys_are_skipped():
    assert decode_request("worker", "print", {"message": "x", "colour": "red"}) == Print("x")
