"""The PB dialect keeps what every dialect promises, and says it as Buildbot's own ends do."""

from __future__ import annotations

import os

import pytest

from tailrace.dialects import DIALECTS
from tailrace.limits import Limits
from tests.dialects.conformance import CHECKS, Pair

SECRET = b"pass"


def clock():
    return 1_700_000_000_000_000, 5


def make(role, **keywords):
    keywords = {"id": "x", "nonce": os.urandom(32), "limits": Limits(), "clock": clock, "software": "1.2", **keywords}
    return DIALECTS["pb"](role, **keywords)


def make_pair(step=0):
    return Pair(make("master"), make("worker", name="w1", secret=SECRET), SECRET, step)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_dialect_does_what_every_dialect_does(check, step):
    check(make_pair(step))
