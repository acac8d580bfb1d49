"""Runs of text-only updates are taken in one step, and everything else is left as it is."""

from __future__ import annotations

import socket

import pytest

from tailrace._core import BananaDecoder, Journal, banana_answers, banana_encode, send_to
from tailrace.dialects.buildbot.pb.jelly import jelly


def update(call: int, target: int, *elements: dict[str, object]) -> bytes:
    args, kwargs = jelly(([[element, 0] for element in elements],)), jelly({})
    return banana_encode((b"message", call, target, b"update", 1, args, kwargs))


def test_updates_of_one_object_are_one_output() -> None:
    decoder = BananaDecoder()
    decoder.use_vocabulary()
    decoder.receive_data(update(1, 5, {"stdout": "a\n"}, {"stdout": "b\n"}) + update(2, 5, {"log": ("l", "ü")}))
    decoder.receive_data(update(3, 6, {"stderr": "c"}) + update(4, 6, {"stderr": "d"}, {"rc": 0}))
    outputs = [decoder.next_output(), decoder.next_output()]
    assert [
        output and (output.target, output.calls, [(*channel, bytes(text)) for *channel, text in output.texts])
        for output in outputs
    ] == [
        (5, [1, 2], [("stdout", None, b"a\nb\n"), ("log", "l", "ü".encode())]),
        (6, [3], [("stderr", None, b"c")]),
    ]
    # A result is no text: the call comes as it is, and once.
    assert decoder.next_output() is None
    expression = decoder.next_expression()
    assert isinstance(expression, list)
    assert expression[1] == 4
    assert decoder.next_expression() is None


def test_output_is_gathered_into_a_journal() -> None:
    decoder, journal, plain = BananaDecoder(), Journal(), Journal()
    decoder.use_vocabulary()
    decoder.receive_data(update(1, 5, {"stdout": "a\nb"}, {"log": ("l", "ü")}) + update(2, 5, {"stdout": "c\n"}))
    output = decoder.next_output()
    assert output is not None
    journal.gather(output, 7, 8)
    for channel, text, name in (("stdout", b"a\nb", None), ("log", "ü".encode(), "l"), ("stdout", b"c\n", None)):
        plain.append(channel, text, 7, 8, name)
    assert (journal.end, journal.chain_at(journal.end)) == (plain.end, plain.chain_at(plain.end))
    assert [journal.is_inside_line("stdout", None), journal.is_inside_line("log", "l")] == [False, True]


def test_several_answers_are_as_one_after_another() -> None:
    calls = [1, 200, 1 << 40]
    for vocabulary in (True, False):
        each = [banana_encode((b"answer", call, 0), vocabulary) for call in calls]
        assert banana_answers(calls, 0, vocabulary) == b"".join(each)


def test_bytes_come_from_a_socket_and_go_to_one() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        decoder = BananaDecoder()
        assert decoder.receive_from(ours.fileno(), 100_000) is None
        theirs.setblocking(False)
        expression = [b"x" * 50_000, b"y"]
        data = banana_encode(expression, False)
        assert send_to(theirs.fileno(), data, 20_000) == 20_000
        assert decoder.receive_from(ours.fileno(), 100_000) == 20_000
        assert decoder.next_expression() is None
        assert send_to(theirs.fileno(), data[20_000:], 100_000) == len(data) - 20_000
        assert decoder.receive_from(ours.fileno(), 100_000) == len(data) - 20_000
        assert decoder.next_expression() == expression
        # A full socket takes nothing, and one that is closed says so.
        while send_to(theirs.fileno(), bytes(100_000), 100_000):
            pass
        theirs.close()
        while decoder.receive_from(ours.fileno(), 1 << 20):
            pass
        with pytest.raises(OSError, match="Broken pipe"):
            send_to(ours.fileno(), b"x", 1)
