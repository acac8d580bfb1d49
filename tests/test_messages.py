"""`Updates`: a read-only mapping with the document's keys and types."""

from __future__ import annotations

import pytest

from tailrace._core import Journal
from tailrace.messages import Record, Updates


def journal(*entries, failure=None, finish=True):
    made = Journal()
    for entry in entries:
        match entry:
            case (channel, bytes(data)):
                made.append(channel, data, 1_700_000_000_000_000, 5)
            case (channel, name, bytes(data)):
                made.append(channel, data, 1_700_000_000_000_000, 5, name)
            case dict():
                made.update(entry)
    if finish:
        made.finish(failure)
    return made.batch(0, 1 << 30)


def test_the_documents_keys_have_the_documents_types():
    updates = Updates(
        journal(
            ("stdout", b"out\n"),
            ("stderr", b"err\n"),
            ("header", b"head\n"),
            ("log", "test.log", b"logged\n"),
            {"stat": tuple(range(10)), "files": ["a", "b"], "got_revision": "abc", "repo_downloaded": ["x"]},
            {"failure_reason": "timeout", "signal": "SIGTERM"},
            {"rc": -1, "elapsed": 1.5},
        )
    )
    assert updates == {
        "stdout": "out\n",
        "stderr": "err\n",
        "header": "head\n",
        "log": ("test.log", "logged\n"),
        "stat": tuple(range(10)),
        "files": ["a", "b"],
        "got_revision": "abc",
        "repo_downloaded": ["x"],
        "failure_reason": "timeout",
        "signal": "SIGTERM",
        "rc": -1,
        "elapsed": 1.5,
    }
    assert isinstance(updates["stat"], tuple)
    assert len(updates) == 12
    assert "nothing" not in updates
    with pytest.raises(KeyError):
        updates["nothing"]


def test_it_is_read_only():
    updates = Updates(journal(("stdout", b"x")))
    with pytest.raises(TypeError):
        updates["stdout"] = "y"


def test_records_are_the_bytes_in_order():
    updates = Updates(journal(("stdout", b"a\nb"), ("stderr", b"\xff\n"), ("log", "l", b"x"), {"rc": 0}))
    records = updates.records
    assert all(isinstance(record, Record) for record in records)
    assert [(record.channel, record.name, record.data) for record in records] == [
        ("stdout", None, b"a\nb"),
        ("stderr", None, b"\xff\n"),
        ("log", "l", b"x"),
    ]
    first = records[0]
    assert (len(first), bytes(memoryview(first))) == (3, b"a\nb")
    assert (first.lines, first.partial, first.times) == (2, True, [1_700_000_000.0] * 2)


def test_a_command_that_said_nothing_has_no_keys():
    updates = Updates(journal())
    assert dict(updates) == {}
    assert updates.records == []
    assert updates.receipt.records == 1
    assert (updates.start, updates.end) == (0, updates.batch.end)


def test_channels_are_decoded_with_replacement():
    assert Updates(journal(("stdout", b"a\xffb")))["stdout"] == "a\N{REPLACEMENT CHARACTER}b"
    assert Updates(journal(("stdout", b"\xfc")), encoding="latin-1")["stdout"] == "ü"


def test_it_shows_what_it_holds():
    assert repr(Updates(journal(("stdout", b"x"), {"rc": 0}, finish=False))).endswith(": stdout, rc>")
