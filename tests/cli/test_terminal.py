"""What a log may do to a terminal."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tailrace.cli.terminal import Harmless, printable

LOGS = st.lists(
    st.sampled_from(
        [b"\x1b[31m", b"\x1b[0m", b"\x1b[2J", b"\x1b]0;t\x07", b"a", "é€😀\x9b".encode(), b"\n", b"\r", b"\x9b1m"]
    )
    | st.binary(max_size=4),
    max_size=12,
).map(b"".join)


def shown(*pieces: bytes) -> bytes:
    harmless = Harmless()
    return b"".join([*map(harmless.receive_data, pieces), harmless.receive_eof()])


@pytest.mark.parametrize(
    ("log", "seen"),
    [
        (b"plain\ttext\r\n", b"plain\ttext\r\n"),
        ("naïve 😀\n".encode(), "naïve 😀\n".encode()),
        (b"\x1b[1;31mred\x1b[0m", b"\x1b[1;31mred\x1b[0m"),
        (b"\x1b[38:2:1:2:3mx\x1b[m", b"\x1b[38:2:1:2:3mx\x1b[m"),
        (b"\x1b[2J\x1b[H", b"^[[2J^[[H"),
        (b"\x1b]0;title\x07", b"^[]0;title^G"),
        (b"\x1b[c\x05", b"^[[c^E"),
        (b"a\x08b\x7f\0", b"a^Hb^?^@"),
        (b"\x9b2J", b"\\x9b2J"),
        ("\x9b2J".encode(), b"\\x9b2J"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"\x1b[31mred, and no end", b"\x1b[31mred, and no end\x1b[0m"),
        (b"\x1b[3", b"^[[3"),
    ],
)
def test_colours_stay_and_the_rest_becomes_text(log, seen):
    assert shown(log) == seen


@given(LOGS, st.lists(st.integers(0, 60), max_size=5))
@example(b"\x1b[31m\xe2\x82\xac", [3, 6])
def test_where_the_log_is_cut_makes_no_difference(log, cuts):
    edges = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    pieces = [log[begin:end] for begin, end in pairwise(edges)]
    assert shown(*pieces) == shown(log)


@given(LOGS)
def test_nothing_that_a_terminal_obeys_is_left(log):
    seen = re.sub(rb"\x1b\[[0-9;:]*m", b"", shown(log))
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", seen)
    assert not re.search("[\x80-\x9f]", seen.decode(errors="replace"))


def test_a_sequence_without_an_end_is_not_kept_for_ever():
    harmless = Harmless()
    assert len(harmless.receive_data(b"\x1b[" + b"1" * 100_000)) > 99_000


def test_names_from_elsewhere_are_one_harmless_line():
    assert printable("a\nb\x1b[2J\x9bé") == "a\\nb\\x1b[2J\\x9bé"
