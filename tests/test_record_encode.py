"""A record can be passed on alone, whole or cut."""

from __future__ import annotations

import pytest

from tailrace._core import Batch, Journal


def records(raw):
    return Batch.parse(raw).records()


def facts(record):
    return (
        record.channel,
        record.name,
        record.data,
        record.lines,
        record.times,
        record.time,
        record.partial,
        record.continues,
    )


@pytest.fixture
def journal():
    journal = Journal()
    journal.append("stdout", b"one\ntwo\nthr", 5_000_000, 1)
    journal.append("stdout", b"ee\nfour\n", 6_000_000, 2)
    journal.append("log", b"a\n\nb", 7_000_000, 3, "x.log")
    return journal


def test_a_record_is_encoded_as_it_came(journal):
    batch = journal.batch(0, 1 << 20)
    assert b"".join(record.encode() for record in batch.records()) == bytes(batch.raw)


@pytest.mark.parametrize(("number", "cut"), [(0, 0), (0, 1), (0, 2), (1, 0), (2, 1), (2, 2)])
def test_a_cut_record_is_encoded_as_what_is_left(journal, number, cut):
    left = journal.batch(0, 1 << 20).records()[number].cut(cut)
    (again,) = records(left.encode())
    assert facts(again) == facts(left)
