"""The hard gate: the hot loops in Rust take no more instructions than is written down."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))

import instructions

BUILD_AND_COUNT_S = 600


def test_what_changed_is_told_in_either_direction():
    before = {"same": 1_000_000, "noise": 1_000_000, "slower": 1_000_000, "faster": 1_000_000, "gone": 1_000_000}
    now = {"same": 1_000_000, "noise": 1_040_000, "slower": 1_060_000, "faster": 900_000, "new": 5}
    assert [str(change) for change in instructions.changes(before, now)] == [
        "slower: 1,000,000 → 1,060,000 instructions (+6.0%)",
        "faster: 1,000,000 → 900,000 instructions (-10.0%)",
        "new: 5 instructions, and nothing is written down",
        "gone: there is no such loop any more",
    ]


@pytest.mark.slow
@pytest.mark.timeout(BUILD_AND_COUNT_S)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="what is written down is an x86-64's")
@pytest.mark.skipif(not instructions.can_count(), reason=instructions.MISSING)
def test_the_hot_loops_take_no_more_instructions_than_written_down():
    found = instructions.changes(instructions.baseline(), instructions.count(instructions.build()))
    assert not found, f"{instructions.complaint(found)}\nIf that is meant, write it down: {instructions.WRITE}"
