"""Records back from a stream that was cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import Journal
from tailrace.cli.failure import Failure
from tailrace.cli.records import Framer


def journal(pieces: list[bytes]) -> bytes:
    made = Journal()
    for number, piece in enumerate(pieces):
        made.append("stdout", piece, 1, number)
    batch = made.batch(0, 1 << 20)
    return b"" if batch is None else bytes(batch.raw)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 40))
def test_every_record_comes_once_and_whole(pieces, size):
    stream, framer = journal(pieces), Framer()
    batches = [framer.receive_data(stream[at : at + size]) for at in range(0, len(stream), size)]
    records = [record for batch in batches if batch is not None for record in batch.records()]
    assert [record.data for record in records] == pieces
    framer.receive_eof()


def test_half_a_record_at_the_end_is_a_failure():
    framer = Framer()
    assert framer.receive_data(journal([b"abc"])[:-1]) is None
    with pytest.raises(Failure, match="broke off"):
        framer.receive_eof()


def test_a_length_that_cannot_be_is_a_failure():
    with pytest.raises(Failure, match="another version"):
        Framer().receive_data(b"\xff\xff\xff\xff\0")
