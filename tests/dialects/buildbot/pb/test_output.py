"""Runs of text-only updates are taken in one step, and everything else is left as it is."""

from __future__ import annotations

from tailrace._core import BananaDecoder, banana_encode
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
        output and (*output[:2], [(channel, name, bytes(text)) for channel, name, text in output[2]])
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
