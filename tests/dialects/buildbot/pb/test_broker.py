"""The broker: profile and version, calls and answers, and references in every order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import BananaDecoder, banana_encode
from tailrace.dialects.buildbot.pb.broker import REFERENCES_MAX, ROOT, Answered, Broker, Called, Failed
from tailrace.dialects.buildbot.pb.jelly import Failure, Remote
from tailrace.errors import LocalProtocolError, RemoteProtocolError

BIG = 1 << 24
NONE = [b"None"]


def carry(source, target):
    """What the target is told."""
    target.receive_data(source.data_to_send(BIG))
    return list(iter(target.next_message, None))


@pytest.fixture
def pair():
    """(server, client), which have agreed."""
    server, client = Broker("server"), Broker("client")
    assert client.data_to_send(BIG) == b""
    assert carry(server, client) == carry(client, server) == carry(server, client) == []
    return server, client


def said(broker):
    """What a broker sends now, as expressions."""
    decoder = BananaDecoder()
    decoder.use_vocabulary()
    decoder.receive_data(broker.data_to_send(BIG))
    return list(iter(decoder.next_expression, None))


def tell(broker, *expression):
    broker.receive_data(banana_encode(expression))
    return list(iter(broker.next_message, None))


def test_both_agree_on_profile_and_version():
    server, client = Broker("server"), Broker("client")
    client.call(ROOT, "login", b"w1")
    assert server.data_to_send(BIG) == b"\x02\x80\x02\x82pb\x04\x82none"
    client.receive_data(b"\x02\x80\x02\x82pb\x04\x82none")
    assert client.next_message() is None
    hello = client.data_to_send(BIG)
    assert hello == bytes.fromhex("02827062028013870681 07801a8701810482726f6f741487018102800b870282773101800587")
    server.receive_data(hello)
    assert server.next_message() == Called(1, ROOT, "login", (b"w1",), {})
    assert server.data_to_send(BIG) == bytes.fromhex("028013870681")


def test_a_peer_may_do_without_the_vocabulary():
    server = Broker("server")
    server.data_to_send(BIG)
    server.receive_data(banana_encode(b"none", False))
    server.receive_data(banana_encode([b"message", 1, b"root", b"login", 1, [b"tuple"], [b"dictionary"]], False))
    assert server.next_message().method == "login"
    assert server.data_to_send(BIG) == banana_encode([b"version", 6], False)


@pytest.mark.parametrize("choice", [b"pbx", 5, [b"pb"], [b"none"]])
def test_another_profile_is_none(choice):
    for side in ("server", "client"):
        if (side, choice) != ("client", [b"pb"]):
            broker = Broker(side)
            broker.receive_data(banana_encode(choice, False))
            with pytest.raises(RemoteProtocolError):
                broker.next_message()


@pytest.mark.parametrize(
    "expression",
    [
        (b"version", 5),
        (b"answer", 1, NONE),
        (b"error", 7, NONE),
        (b"decref", 1),
        (b"decref", b"root"),
        (b"message", 1, b"root", b"login", 1, [b"tuple"]),
        (b"message", b"1", b"root", b"login", 1, [b"tuple"], [b"dictionary"]),
        (b"something",),
        (5,),
        (),
    ],
    ids=repr,
)
def test_what_is_no_message_ends_it_for_ever(pair, expression):
    server, _ = pair
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            tell(server, *expression)


def test_calls_are_answered_once_in_any_order(pair):
    server, client = pair
    one, two, three = (client.call(ROOT, "login", number) for number in range(3))
    calls = carry(client, server)
    assert [call.args for call in calls] == [(0,), (1,), (2,)]
    server.answer(calls[2].call, "three")
    server.fail(calls[0].call, Failure("a.B", "no", ("a.B",)))
    server.answer(calls[0].call, "again")
    server.answer(calls[1].call, None)
    assert carry(server, client) == [
        Answered(three, "three"),
        Failed(one, Failure("a.B", "no", ("a.B",))),
        Answered(two, None),
    ]
    assert server.data_to_send(BIG) == b""


def test_a_call_that_wants_no_answer_gets_none(pair):
    server, _ = pair
    [called] = tell(server, b"message", 1, b"root", b"login", 0, [b"tuple"], [b"dictionary"])
    server.answer(called.call, None)
    server.fail(called.call, Failure("a.B", ""))
    assert server.data_to_send(BIG) == b""


def test_arguments_that_are_none_fail_the_call_and_nothing_else(pair):
    server, _ = pair
    assert tell(server, b"message", 1, b"root", b"login", 1, [b"tuple", [b"os.system"]], [b"dictionary"]) == []
    [[_, one, failure]] = said(server)
    assert one == 1
    assert b"twisted.spread.jelly.InsecureJelly" in repr(failure).encode()
    assert tell(server, b"message", 2, b"root", b"login", 1, [b"dictionary"], [b"dictionary"]) == []
    assert tell(server, b"message", 3, b"root", b"login", 1, [b"list", 5], [b"dictionary"])[0].args == [5]


def test_an_unknown_object_fails_the_call(pair):
    server, client = pair
    for target in (7, b"other"):
        assert tell(server, b"message", 8, target, b"login", 1, [b"tuple"], [b"dictionary"]) == []
        [[error, _, failure]] = said(server)
        assert error == b"error"
        assert b"Invalid Object ID" in repr(failure).encode()
    # A client has no root.
    assert tell(client, b"message", 8, b"root", b"login", 1, [b"tuple"], [b"dictionary"]) == []


def test_an_object_lives_as_long_as_it_is_referred_to(pair):
    server, client = pair
    one, two = client.call(ROOT, "get"), client.call(ROOT, "get")
    for asked in carry(client, server):
        server.answer(asked.call, [server.export("object")])
    assert carry(server, client) == [Answered(one, [Remote(1)]), Answered(two, [Remote(1)])]
    assert server.exported == 1
    # Nothing was kept: it went back with the next message, as often as it came.
    assert carry(client, server) == []
    assert server.exported == 0
    assert server.export("object") == Remote(2)


def test_what_is_kept_is_given_back_when_it_is_released(pair):
    server, client = pair
    reference = server.export("object")
    client.call(ROOT, "get")
    [asked] = carry(client, server)
    server.answer(asked.call, [reference, server.export("object")])
    client.receive_data(server.data_to_send(BIG))
    client.next_message()
    client.keep(reference)
    assert client.next_message() is None
    assert said(client) == []
    client.release(reference)
    client.release(reference)
    client.release(reference)
    assert said(client) == [[b"decref", 1], [b"decref", 1]]


def test_a_revoked_object_is_gone_and_may_be_given_back_late(pair):
    server, _ = pair
    server.export("object")
    server.revoke("object")
    server.revoke("object")
    assert tell(server, b"decref", 1) == []
    assert tell(server, b"message", 1, 1, b"update", 1, [b"tuple"], [b"dictionary"]) == []
    with pytest.raises(RemoteProtocolError, match="never"):
        tell(server, b"decref", 2)


def test_no_more_objects_are_out_than_a_peer_takes(pair):
    server, _ = pair
    for number in range(REFERENCES_MAX):
        server.export(number)
    with pytest.raises(LocalProtocolError, match="1024"):
        server.export("one more")
    server.export(5)
    server.revoke(5)
    server.export("one more")


def test_what_cannot_be_sent_leaves_no_trace(pair):
    server, client = pair
    with pytest.raises(LocalProtocolError):
        client.call(ROOT, "login", bytes(640 * 1024 + 1))
    assert client.call(ROOT, "login") == 1
    [called] = carry(client, server)
    with pytest.raises(LocalProtocolError):
        server.answer(called.call, 1 << 500)
    server.answer(called.call, 5)
    assert carry(server, client) == [Answered(1, 5)]


def test_data_go_out_in_pieces(pair):
    server, client = pair
    client.call(ROOT, "login", bytes(1000))
    while data := client.data_to_send(7):
        assert len(data) <= 7
        server.receive_data(data)
    assert server.next_message().args == (bytes(1000),)


@given(st.lists(st.sampled_from(["send", "decref", "revoke"]), max_size=30))
def test_counts_agree_in_every_order(steps):
    """Whatever the order of references, decrefs and revocations: what is exported is what is referred to."""
    server = Broker("server")
    server.receive_data(banana_encode(b"pb", False))
    server.next_message()
    out = luid = 0
    for step in steps:
        if step == "send":
            luid = server.export("object").luid
            out += 1
        elif step == "revoke":
            server.revoke("object")
            out = 0
        elif luid:
            tell(server, b"decref", luid)
            out = max(0, out - 1)
        assert server.exported == bool(out)


EXPRESSIONS = st.recursive(
    st.sampled_from(
        [b"message", b"answer", b"error", b"decref", b"version", b"root", b"login", b"tuple", b"dictionary"]
    )
    | st.sampled_from([b"unicode", b"list", b"remote", b"local", b"None"])
    | st.integers(-2, 7)
    | st.floats(),
    lambda inner: st.lists(inner, max_size=7),
    max_leaves=40,
)


@given(st.lists(EXPRESSIONS, max_size=5), st.sampled_from(["server", "client"]))
def test_any_expression_is_a_message_or_the_peers_fault(expressions, side):
    broker = Broker(side)
    broker.receive_data(banana_encode(b"pb" if side == "server" else [b"pb"], False))
    broker.call(ROOT if side == "client" else Remote(1), "x")
    broker.export("object")
    try:
        for expression in expressions:
            broker.receive_data(banana_encode(expression))
            while broker.next_message() is not None:
                pass
    except RemoteProtocolError:
        return
