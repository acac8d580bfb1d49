"""Text in whole lines: the slow model is the specification, and nothing is lost however it is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.dialects.buildbot import lines as lines_module
from tailrace.dialects.buildbot.lines import LineMaker, LineStyle
from tailrace.dialects.buildbot.msgpack.worker import NEWLINE_RE

BUILDBOT = LineStyle(separator=re.compile(NEWLINE_RE))
PLAIN = LineStyle()
DRIBBLE = LineStyle(whole=False)


def run(style, *pieces):
    """Each piece begins at its index in seconds, and each of its lines too."""
    maker, texts, times = LineMaker(style), [], []
    inside = False
    for at, piece in enumerate(pieces):
        began = piece.count(b"\n", 0, len(piece) - 1) + (not inside)
        made = maker.add(piece, [float(at)] * began, float(at), continues=inside)
        inside = not piece.endswith(b"\n")
        if made is not None:
            texts.append(made[0])
            times += made[1]
    if (made := maker.flush()) is not None:
        texts.append(made[0])
        times += made[1]
    return texts, times


@given(st.lists(st.binary(min_size=1, max_size=8).map(lambda data: data.replace(b"x", b"\n")), max_size=12))
def test_nothing_is_lost_and_every_line_has_the_time_of_its_first_byte(pieces):
    texts, times = run(PLAIN, *pieces)
    everything = b"".join(pieces)
    whole = everything if everything.endswith(b"\n") or not everything else everything + b"\n"
    assert "".join(texts) == whole.decode("utf-8", "replace")
    assert all(text.endswith("\n") for text in texts)
    at_byte = [float(at) for at, piece in enumerate(pieces) for _ in piece]
    assert times == [at for index, at in enumerate(at_byte) if index == 0 or everything[index - 1] == 10]


@given(st.lists(st.text(alphabet="ab\n\r\x08é", min_size=1, max_size=6), max_size=10))
def test_separators_are_newlines_wherever_the_pieces_are_cut(pieces):
    texts, times = run(BUILDBOT, *(piece.encode() for piece in pieces))
    joined = "".join(texts)
    assert (
        re.sub("\n+", "\n", joined) == re.sub("[\n\r\x08]+", "\n", "".join(pieces) + "\n" * bool(pieces))
        or "\r" in joined
    )
    assert len(times) == joined.count("\n")
    assert times == sorted(times)


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=12))
def test_a_peer_of_ours_gets_everything_at_once(pieces):
    texts, _ = run(DRIBBLE, *pieces)
    assert "".join(texts) == b"".join(pieces).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((b"a\r", b"\nb\n"), "a\nb\n"),
        ((b"10%\r", b"20%\r", b"done\n"), "10%\n20%\ndone\n"),
        ((b"x\x1b[1", b"2;3Hy\n"), "x\ny\n"),
        ((b"x\x1b[32mgreen\n",), "x\x1b[32mgreen\n"),
        ((b"a\x08\x08b",), "a\nb\n"),
    ],
)
def test_a_separator_may_be_cut(pieces, text):
    assert "".join(run(BUILDBOT, *pieces)[0]) == text


def test_a_character_may_be_cut():
    assert run(PLAIN, "é".encode()[:1], "é".encode()[1:])[0] == ["é\n"]


def test_a_line_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(lines_module, "LINE_CHARS_MAX", 100)
    texts, times = run(PLAIN, *[b"x" * 60] * 4)
    assert texts == ["x" * 120 + "\n", "x" * 120 + "\n"]
    assert times == [0.0, 1.0]
