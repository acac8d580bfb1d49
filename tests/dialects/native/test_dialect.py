"""The native dialect does what every dialect does, and refuses what is not in PROTOCOL.md."""

from __future__ import annotations

import pytest

from tailrace import _core
from tailrace.dialects import DIALECTS
from tailrace.dialects.native.dialect import GATHER_BYTES, GATHER_BYTES_MIN
from tailrace.errors import LocalProtocolError, RemoteProtocolError
from tailrace.limits import Limits
from tailrace.messages import CallFailed, Print
from tests.dialects.conformance import CHECKS, Pair

SECRET = b"a secret of the tests"


def make_pair(step=0):
    make = DIALECTS["tailrace"]
    return Pair(
        make("master", id="the-master", nonce=bytes(32), limits=Limits()),
        make("worker", id="i1", nonce=bytes(31) + b"\x01", name="w1", secret=SECRET, limits=Limits()),
        SECRET,
        step,
    )


@pytest.mark.parametrize("step", [0, 1, 1000], ids=["whole", "byte by byte", "in pieces"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_conforms(check, step):
    if step == 1 and check.__name__ == "a_stream_does_not_outrun_its_credit":
        step = 7919
    check(make_pair(step))


def stranger():
    """A worker that says what ours would not."""
    return _core.Session("worker", id="i1", nonce=bytes(32), name="w1", secret=SECRET)


def attached_to_stranger():
    pair = make_pair()
    pair.worker = stranger()
    pair.events[pair.worker] = []
    pair.turn()
    assert pair.master.admit(SECRET)
    pair.turn()
    pair.events[pair.worker].clear()
    pair.events[pair.master].clear()
    return pair


def test_a_method_that_does_not_exist_is_the_callers_to_know():
    pair = attached_to_stranger()
    number = pair.worker.call("perspective_shutdown", {})
    assert pair.events_of(pair.master) == []
    [failed] = pair.events_of(pair.worker)
    assert (failed.call, failed.type) == (number, "Unsupported")


def test_a_call_of_the_other_sides_method_does_not_exist():
    pair = attached_to_stranger()
    pair.worker.call("print", {"message": "x"})
    assert pair.events_of(pair.master) == []
    assert pair.events_of(pair.worker)[0].type == "Unsupported"


def test_arguments_of_the_wrong_type_end_the_session_for_ever():
    pair = attached_to_stranger()
    pair.worker.call("held", {"commands": "all of them"})
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="'commands' must be list, not 'all of them'"):
            pair.turn()
    assert pair.master.eof_to_send


def test_what_cannot_be_said_is_refused_before_any_byte_is_made():
    pair = make_pair()
    pair.log_in()
    with pytest.raises(LocalProtocolError):
        pair.master.call(Print(object()))
    assert pair.master.data_to_send(1000) == b""


def test_a_failed_call_is_told_as_it_was():
    pair = make_pair()
    pair.log_in()
    number = pair.master.call(Print("x"))
    [called] = pair.events_of(pair.worker)
    pair.worker.fail(called.call, "UnknownCommand", "no such thing")
    assert pair.events_of(pair.master) == [CallFailed(number, "UnknownCommand", "no such thing")]


def test_output_gathers_only_as_far_as_the_peer_may_send_it():
    pair, record, gathers = make_pair(), bytes.fromhex("0000ffff40") + bytes(65534), []
    pair.log_in()
    stream = pair.worker.open("journal", "1")
    for _ in range(40):
        assert pair.worker.room(stream) >= len(record)
        pair.worker.write(stream, record)
        pair.turn()
        gathers.append(pair.master.receive_gathers)
        if (batch := pair.master.take(stream, 1 << 20)) is not None:
            pair.master.settle(stream, batch.end, batch.end)
            pair.turn()
    # The first record is more than a stream may bring at once; a busy one may bring more than is worth a turn.
    assert (gathers[0], gathers[-1]) == (0, GATHER_BYTES)
    assert all(GATHER_BYTES_MIN <= count <= GATHER_BYTES for count in gathers[2:])
