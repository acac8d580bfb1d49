"""The PB dialect keeps what every dialect promises, and says it as Buildbot's own ends do."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import Journal, banana_encode
from tailrace.dialects import DIALECTS
from tailrace.dialects.buildbot.pb import failures, objects
from tailrace.dialects.buildbot.pb.master import respond
from tailrace.errors import LocalProtocolError, RemoteProtocolError
from tailrace.limits import Limits
from tailrace.messages import (
    AskShutdown,
    Called,
    CallFailed,
    ForgetCommand,
    GetWorkerInfo,
    Held,
    LoggedIn,
    LoginAsked,
    PeerClosed,
    Ponged,
    Refused,
    Replied,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
    StreamReadable,
)
from tests.dialects.conformance import BIG, CHECKS, Pair

from .recordings import load, load_units

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


# ---------------------------------------------------------------- the login


def attached(**keywords):
    pair = make_pair(**keywords)
    pair.log_in()
    return pair


def requests_of(pair, side):
    return [event.request for event in pair.events_of(side) if isinstance(event, Called)]


def test_a_worker_answers_before_it_is_taken():
    pair = make_pair()
    pair.turn()
    assert pair.master.admit(SECRET)
    call = pair.master.call(GetWorkerInfo())
    logged_in, asked = pair.events_of(pair.worker)
    assert isinstance(logged_in, LoggedIn)
    held = pair.worker.call(Held(()))
    pair.worker.reply(asked.call, {"version": "1", "encoding": "latin-1"})
    # Its output is decoded before it is sent.
    assert pair.events_of(pair.master)[-1] == Replied(call, {"version": "1", "encoding": "utf-8"})
    assert pair.events_of(pair.worker) == []
    [taken] = [call for call, (_, request) in pair.master._asked.items() if isinstance(request, Held)]
    pair.master.reply(taken, None)
    assert pair.events_of(pair.worker) == [Replied(held, None)]


@pytest.mark.parametrize("reason", ["duplicate", "rejected", "not now"])
def test_a_worker_that_is_refused_late_hears_why(reason):
    pair = make_pair()
    pair.turn()
    assert pair.master.admit(SECRET)
    pair.master.call(GetWorkerInfo())
    pair.turn()
    pair.master.close(reason, "there is another")
    assert pair.events_of(pair.worker)[-1] == PeerClosed(reason, "there is another")
    assert pair.master.eof_to_send
    assert pair.worker.eof_to_send


def test_a_real_worker_that_is_not_wanted_comes_again():
    """Told anything but `UnauthorizedLogin`, it ends its process."""
    for reason, again in (("credentials", True), ("rejected", True), ("not now", True), ("duplicate", False)):
        assert failures.refusal(reason, "text").is_a("twisted.cred.error.UnauthorizedLogin") == again


@pytest.mark.parametrize("secret", [b"", b"wrong"])
def test_a_challenge_is_good_for_one_answer(secret):
    pair = make_pair()
    pair.turn()
    assert not pair.master.admit(secret)
    with pytest.raises(LocalProtocolError):
        pair.master.admit(SECRET)
    assert pair.events_of(pair.worker) == [Refused("credentials", "unknown worker or wrong secret")]


def test_clients_that_are_no_workers_are_not_let_in():
    packets, _ = load("sendchange")
    master = make("master")
    for data in [data for to, data in packets if to == "w2m"][:2]:
        master.receive_data(data)
        assert master.next_event() is None
    assert b"UnauthorizedLogin" in master.data_to_send(1 << 20)


def test_responses_are_buildbots():
    for unit in load_units("jelly")["cred"]:
        challenge, response = bytes.fromhex(unit["challenge"]), bytes.fromhex(unit["response"])
        assert respond(bytes.fromhex(unit["password"]), challenge) == response


def test_a_ping_of_a_worker_is_answered_before_its_login_is():
    pair = make_pair()
    pair.turn()
    pair.worker.ping(3)
    assert pair.events_of(pair.worker) == [Ponged(3)]


def test_pings_and_keepalives_reach_nobody():
    pair = attached()
    pair.worker.ping(4)
    pair.master.ping(5)
    assert pair.events_of(pair.worker) == [Ponged(4)]
    assert pair.events_of(pair.master) == [Ponged(5)]


# ---------------------------------------------------------------- commands


def run(pair, command, *entries):
    """A command from its start to its end; what it reported."""
    pair.begin(command)
    journal = Journal()
    for entry in entries:
        if isinstance(entry, dict):
            journal.update(entry)
        else:
            journal.append(*entry, 1, 1)
    journal.finish()
    stream = pair.worker.open("journal", command)
    while pair.worker.sent(stream) < journal.end:
        pair.worker.write_journal(stream, journal)
        pair.turn()
    pair.worker.end(stream)
    return take(pair)


def take(pair):
    batches = []
    for event in pair.events_of(pair.master):
        if isinstance(event, StreamReadable):
            while (batch := pair.master.take(event.stream, 1 << 24)) is not None:
                batches.append(batch)
                pair.master.settle(event.stream, batch.end, batch.end)
    pair.turn()
    return batches


def test_references_are_given_back_with_their_command():
    pair = attached()
    for command in range(1100):
        [*_, batch] = run(pair, str(command), {"rc": 0})
        assert batch.complete
    # The perspective, and nothing of 1,100 commands.
    assert pair.master._broker.exported == 1
    assert not pair.worker._objects


def test_a_refused_command_leaves_nothing():
    pair = attached()
    pair.answer(SetBuilderList((("b", "dir"),)), ["b"])
    call = pair.master.call(StartCommand(builder="b", command="1", name="no", args={}, impls={"writer": "FileWriter"}))
    [asked] = [event for event in pair.events_of(pair.worker) if isinstance(event, Called)]
    pair.worker.fail(asked.call, "UnknownCommand", "no such command")
    assert pair.events_of(pair.master) == [CallFailed(call, "UnknownCommand", "no such command")]
    pair.turn()
    assert pair.master._broker.exported == 1
    assert not pair.worker._objects


def test_what_is_too_large_for_the_wire_is_said_and_the_rest_arrives():
    pair = attached()
    batches = run(pair, "1", ("stdout", b"before\n"), {"files": ["x" * 700_000]}, {"rc": 0})
    header = b"".join(batch.channel_bytes("header") for batch in batches).decode()
    assert "files cannot be sent to the master" in header
    assert {"rc": 0} in [batch.updates() for batch in batches]
    assert batches[-1].complete


def test_lines_of_any_length_arrive_whole():
    pair = attached()
    line = "\N{SNOWMAN}" * 1_000_000 + "\n"
    batches = run(pair, "1", ("stdout", line.encode()), {"rc": 0})
    assert b"".join(batch.channel_bytes("stdout") for batch in batches) == line.encode()


def test_an_id_that_is_in_use_is_refused_by_the_worker():
    pair = attached()
    pair.begin("1")
    pair.master._forget("1")
    call = pair.master.call(StartCommand(builder="b", command="1", name="shell", args={}, impls={}))
    [failed] = [event for event in pair.events_of(pair.master) if isinstance(event, CallFailed)]
    assert (failed.call, failed.type) == (call, "CommandIdInUse")


def test_builders_come_and_go():
    pair = attached()
    pair.answer(SetBuilderList((("a", "a"), ("b", "b"))), ["a", "b"])
    pair.answer(SetBuilderList((("b", "b"), ("c", "c"))), ["b", "c"])
    pair.turn()
    # The bot, and the two.
    assert pair.worker._broker.exported == 3
    pair.answer(StartBuild("b"))
    with pytest.raises(LocalProtocolError, match="no builder 'a'"):
        pair.master.call(StartBuild("a"))


def test_a_worker_may_ask_for_its_end():
    pair = attached()
    call = pair.worker.call(AskShutdown())
    [asked] = [event for event in pair.events_of(pair.master) if isinstance(event, Called)]
    pair.master.reply(asked.call, None)
    assert pair.events_of(pair.worker) == [Replied(call, None)]
    pair.master.call(Shutdown())
    assert requests_of(pair, pair.worker) == [Shutdown()]
    # Real workers do not always answer it.
    pair.master.receive_eof()
    assert pair.events_of(pair.master) == [PeerClosed("shutdown", "")]


@pytest.mark.parametrize("request_", [Held(()), ForgetCommand("1"), AskShutdown()], ids=lambda r: type(r).__name__)
def test_a_master_says_only_what_the_wire_has(request_):
    pair = attached()
    with pytest.raises(LocalProtocolError):
        pair.master.call(request_)


def test_a_worker_that_is_too_far_ahead_is_not_read():
    pair = Pair(
        make("master", limits=Limits(connection_window_bytes=100_000)),
        make("worker", name="w1", secret=SECRET),
        SECRET,
        0,
    )
    pair.log_in()
    pair.begin("1")
    journal = Journal()
    journal.append("stdout", b"x" * 80 * 5_000, 1, 1)
    stream = pair.worker.open("journal", "1")
    pair.worker.write_journal(stream, journal)
    journal.append("stdout", b"\n", 1, 1)
    pair.worker.write_journal(stream, journal)
    pair.turn()
    assert pair.master.receive_paused
    take(pair)
    assert not pair.master.receive_paused


def test_short_updates_are_counted_too():
    pair = attached()
    pair.begin("1")
    [luid] = [
        luid for luid, export in pair.master._broker._exports.items() if export.token == objects.CommandObject("1")
    ]
    updates = [b"tuple", [b"list", [b"list", [b"dictionary", [[b"unicode", b"stdout"], [b"unicode", b"."]]], 0]]]
    for call in range(100, 25_100):
        pair.master.receive_data(banana_encode([b"message", call, luid, b"update", 1, updates, [b"dictionary"]]))
    stream = next(event.stream for event in pair.events_of(pair.master) if isinstance(event, StreamReadable))
    assert pair.master.receive_paused
    while (batch := pair.master.take(stream, BIG)) is not None:
        pair.master.settle(stream, batch.end, batch.end)
    assert not pair.master.receive_paused


# ---------------------------------------------------------------- what a peer may do

W2M = b"".join(data for to, data in load("upload")[0] if to == "w2m")
M2W = b"".join(data for to, data in load("upload")[0] if to == "m2w")


def drained(side):
    """Whatever it is told: events, or the one error that there is."""
    try:
        while (event := side.next_event()) is not None:
            match event:
                case LoginAsked():
                    side.admit(SECRET)
                case Called(call, SetBuilderList()):
                    side.reply(call, [])
                case Called(call, _):
                    side.reply(call, None)
    except RemoteProtocolError:
        assert side.eof_to_send
        with pytest.raises(RemoteProtocolError):
            side.next_event()
    side.data_to_send(1 << 20)


@given(st.sampled_from(["master", "worker"]), st.binary(max_size=200), st.integers(0, 3000), st.integers(1, 100))
def test_any_bytes_are_the_peers_fault_at_most(role, data, at, step):
    """Garbage at any place of a real session."""
    side = make(role, name="w1", secret=SECRET, nonce=bytes(32))
    said = (W2M if role == "master" else M2W)[:at] + data
    for start in range(0, len(said), step):
        side.receive_data(said[start : start + step])
        drained(side)
    side.receive_eof()
    drained(side)


@given(st.sampled_from(["master", "worker"]), st.integers(0, 3000), st.integers(0, 255))
def test_one_wrong_byte_is_the_peers_fault_at_most(role, at, byte):
    side = make(role, name="w1", secret=SECRET, nonce=bytes(32))
    said = bytearray((W2M if role == "master" else M2W)[:4000])
    said[at] = byte
    side.receive_data(bytes(said))
    drained(side)


SEXPS = st.recursive(
    st.sampled_from([b"w1", b"read", b"write", b"close", b"utime", b"7", b"unpack"])
    | st.integers(-1, 5)
    | st.sampled_from([[b"None"], [b"tuple"], [b"dictionary"], [b"unicode", b"x"], [b"remote", 1], [b"remote", 9]]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: [b"list", *items])
        | st.lists(inner, max_size=4).map(lambda items: [b"tuple", *items])
        | st.lists(st.tuples(inner, inner).map(list), max_size=3).map(lambda items: [b"dictionary", *items])
    ),
    max_leaves=12,
)
METHODS = {
    "master": ["login", "respond", "keepalive", "shutdown", "update", "complete", "write", "close", "utime", "read"],
    "worker": [
        "print",
        "getWorkerInfo",
        "setBuilderList",
        "shutdown",
        "startCommand",
        "interruptCommand",
        "startBuild",
    ],
}


@pytest.mark.parametrize("role", ["master", "worker"])
@given(st.data())
def test_any_call_in_any_state_is_answered_or_the_peers_fault(role, data):
    pair = make_pair()
    if data.draw(st.booleans()):
        pair.log_in()
        pair.begin("7", writer="FileWriter", reader="FileReader")
    side = pair.master if role == "master" else pair.worker
    pair.turn()
    for call in range(100, 100 + data.draw(st.integers(1, 4))):
        target = data.draw(st.integers(1, 6) | st.just(b"root"))
        method = data.draw(st.sampled_from(METHODS[role])).encode()
        args = [b"tuple", *data.draw(st.lists(SEXPS, max_size=4))]
        side.receive_data(banana_encode([b"message", call, target, method, 1, args, [b"dictionary"]]))
        drained(side)
