"""Every limit has a default, a unit in its name or its text, and a reason."""

from __future__ import annotations

import ast
import inspect
import itertools

import attrs
import pytest

from tailrace import limits
from tailrace.limits import Limits


def test_the_contracts_defaults():
    assert attrs.asdict(Limits()) | {
        "resume_grace_s": 300,
        "ping_interval_s": 15,
        "ping_timeout_s": 45,
        "handshake_timeout_s": 10,
        "frame_bytes_max": 65536,
        "update_bytes_max": 8 << 20,
        "stream_window_bytes": 4 << 20,
        "connection_window_bytes": 32 << 20,
        "orphan_timeout_s": 86400,
    } == attrs.asdict(Limits())


def test_each_says_why():
    [tree] = [node for node in ast.parse(inspect.getsource(limits)).body if isinstance(node, ast.ClassDef)]
    body = tree.body[1:]
    for field, reason in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(reason, ast.Expr), field.target.id
            assert len(reason.value.value) > 60


def test_they_are_frozen_and_checked():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Limits().commands_max = 3
    with pytest.raises(ValueError, match="commands_max"):
        Limits(commands_max=0)
    with pytest.raises(ValueError, match="must be more than ping_interval_s"):
        Limits(ping_interval_s=15, ping_timeout_s=15)
    with pytest.raises(ValueError, match="65536"):
        Limits(frame_bytes_max=1 << 20)
    assert Limits(resume_grace_s=0).resume_grace_s == 0
