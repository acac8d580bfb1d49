"""Old conversations of the native wire mean what they meant, on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from .native_wire import frames, from_digits, load, replay, to_digits

TRANSCRIPTS = sorted((Path(__file__).parent / "native").glob("*.jsonl"))


@pytest.mark.parametrize("side", ["worker", "master"])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_recorded_conversation_is_held_again(path, side):
    replay(load(path), side)


@pytest.mark.parametrize("side", ["worker", "master"])
def test_a_changed_transcript_is_noticed(side):
    lines = load(TRANSCRIPTS[0])
    spoken = [line for line in lines if line.get("from") == side and not line.get("made_up")]
    spoken[-1]["bytes"] = spoken[-1]["bytes"][:-2] + "99"
    with pytest.raises(AssertionError, match="line"):
        replay(lines, side)


def test_every_frame_occurs_in_some_conversation():
    known = {0x01, 0x02, 0x03, *range(0x10, 0x13), *range(0x20, 0x29), 0x30, 0x31, 0x3F}
    spoken = {kind for path in TRANSCRIPTS for side in ("worker", "master") for kind in frames(load(path), side)}
    assert known <= spoken


def test_digits_are_bytes():
    for data in (b"", b"abc", b"x" * 100 + b"y", bytes(range(256))):
        assert from_digits(to_digits(data)) == data
