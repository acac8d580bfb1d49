"""The demo's view of lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tailrace.cli.demo.lines import LineView


def lines(*pieces: bytes) -> list[tuple[str, int]]:
    view = LineView()
    found = [line for piece in pieces for line in view.receive_data(piece)]
    return [(line.text, line.bytes) for line in [*found, *view.receive_eof()]]


def test_a_carriage_return_overwrites():
    assert lines(b"\r10 %\r20 %\rdone\n") == [("done", 4)]
    assert lines(b"a\r\nb") == [("a", 1), ("b", 1)]


def test_only_the_beginning_of_a_long_line_is_kept():
    ((text, size),) = lines(b"x" * 500_000, b"y" * 500_000 + b"\n")
    assert text == "x" * 400
    assert size == 1_000_000


def test_what_has_not_ended_is_there_to_look_at():
    view = LineView()
    assert list(view.receive_data(b"grinding ##..")) == []
    assert view.partial == "grinding ##.."
    assert list(view.receive_data(b"\rgrinding ###.")) == []
    assert view.partial == "grinding ###."


@given(st.text("ab\r\n", max_size=30), st.integers(1, 5))
def test_where_it_is_cut_makes_no_difference(text, size):
    data = text.encode()
    assert lines(*(data[at : at + size] for at in range(0, len(data), size))) == lines(data)
