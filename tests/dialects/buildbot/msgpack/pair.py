"""Two ends of msgpack with a fake wire between them."""

from __future__ import annotations

from tailrace.dialects import DIALECTS
from tailrace.limits import Limits
from tests.dialects.conformance import Pair

SECRET = b"a secret of the tests"
SOFTWARE = "tailrace/test"
INFO = {"basedir": "/w", "system": "posix", "environ": {"HOME": "/home/w"}}


def clock():
    return 5_000_000, 7


def make_master(**limits):
    return DIALECTS["msgpack"](
        "master", id="the-master", nonce=b"", limits=Limits(**limits), clock=clock, software=SOFTWARE
    )


def make_worker(*, instance="i1", name="w1", secret=SECRET, host="master.example:9989"):
    return DIALECTS["msgpack"](
        "worker",
        id=instance,
        nonce=b"",
        limits=Limits(),
        clock=clock,
        host=host,
        name=name,
        secret=secret,
        software=SOFTWARE,
    )


def make_pair(step=0, **limits):
    return Pair(make_master(**limits), make_worker(), SECRET, step)
