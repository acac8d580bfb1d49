"""Batches, journals and ledgers, as Python sees them, against the slow twins."""

import hashlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tailrace._core import (
    Batch,
    Blake3,
    Journal,
    Ledger,
    chunk_records,
    close_record,
    unpack_record,
    utime_record,
)
from tailrace.errors import LocalProtocolError, RemoteProtocolError

from .lines import line_starts, line_times, parts, undecoded_tail

CHANNEL = st.sampled_from([("stdout", None), ("stderr", None), ("header", None), ("log", "a"), ("log", "ü")])
DATA = st.binary(max_size=60) | st.text("a\n\r€😀", max_size=30).map(str.encode)
STEPS = st.lists(st.tuples(CHANNEL, DATA, st.integers(0, 10**6)), max_size=30)


def written(steps, finish=True):
    journal = Journal()
    at = 1_700_000_000_000_000
    for (channel, name), data, gap in steps:
        at += gap
        journal.append(channel, data, at, at, name)
    if finish:
        journal.update({"rc": 0})
        journal.finish()
    return journal


def whole(journal):
    return journal.batch(journal.begin, 1 << 30) or Batch.parse(b"")


@given(STEPS)
def test_the_pieces_of_a_channel_are_its_bytes_and_its_lines_have_their_times(steps):
    batch = whole(written(steps))
    for channel in {channel for channel, _, _ in steps}:
        time, pieces = 1_700_000_000_000_000, []
        for of, data, gap in steps:
            time += gap
            if of == channel:
                pieces.append((data, time / 1e6))
        records = [record for record in batch.records() if (record.channel, record.name) == channel]
        joined = b"".join(data for data, _ in pieces)
        assert batch.channel_bytes(*channel) == joined == b"".join(record.data for record in records)
        assert [time for record in records for time in record.times] == line_times(pieces)
        assert sum(record.lines for record in records) == len(line_starts(joined))
        assert not records or records[-1].partial == (not joined.endswith(b"\n"))


@given(STEPS)
def test_receiver_and_sender_count_the_same(steps):
    batch = whole(written(steps))
    ledger = Ledger()
    for part in batch.parts():
        ledger.add(part)
    receipt = batch.receipt()
    assert ledger.agrees(receipt)
    assert ledger.receipt() == receipt
    assert ledger.offset == batch.end
    other = Ledger()
    other.add(whole(written([*steps, (("stdout", None), b"x", 0)])))
    assert not other.agrees(receipt)


@given(STEPS)
def test_no_part_mixes_two_named_logs(steps):
    batch = whole(written(steps))
    expected = parts(
        [*(channel for channel, data, _ in steps if data), ("update", None), ("complete", None), ("receipt", None)]
    )
    assert [len(part) for part in batch.parts()] == [len(part) for part in expected]
    assert [part.start for part in batch.parts()[1:]] == [part.end for part in batch.parts()[:-1]]
    for part in batch.parts():
        assert len({name for channel, name in part.channels() if channel == "log"}) <= 1


@given(DATA, st.binary(max_size=3), st.booleans())
def test_a_record_is_cut_where_its_lines_begin(data, before, partial):
    data = data or b"x"
    journal = written(
        [(("stdout", None), before + b"x" if partial else before + b"\n", 0), (("stdout", None), data, 0)], False
    )
    record = whole(journal).records()[1]
    starts = line_starts(data, partial)
    assert (record.continues, record.lines) == (partial, len(starts))
    for index, start in enumerate(starts):
        cut = record.cut(index)
        assert (cut.data, cut.lines, cut.continues) == (data[start:], len(starts) - index, False)
        assert cut.times == record.times[index:]
    assert record.cut(len(starts)).data == b""


@given(st.lists(DATA | st.binary(max_size=4), max_size=6))
@example([b"\xed\xa0"])
@example([b"\xed", b"\xa0\x80"])
def test_only_an_unfinished_character_is_carried_on(pieces):
    tails, done = {}, b""
    for data in filter(None, pieces):
        tails = whole(written([(("stdout", None), data, 0)])).tails({("stderr", None): b"\xc2", **tails})
        done += data
        assert tails == ({("stdout", None): tail} if (tail := undecoded_tail(done)) else {})


@given(st.lists(st.binary(min_size=1, max_size=5000), max_size=20))
def test_the_chain_is_as_specified(pieces):
    journal = written([(("stdout", None), data, 0) for data in pieces], False)
    ledger = Ledger()
    chain = bytes(32)
    raw = bytes(whole(journal).raw)
    while raw:
        (length,) = struct.unpack_from(">I", raw)
        digest = Blake3()
        digest.update(chain + raw[: 4 + length])
        chain, raw = digest.digest(), raw[4 + length :]
    ledger.add(whole(journal))
    assert ledger.chain == chain


def test_views_share_the_bytes_and_keep_them():
    journal = written([(("stdout", None), b"hello\n", 0)], False)
    record = whole(journal).records()[0]
    view = memoryview(record)
    assert (view.readonly, len(record), bytes(view)) == (True, 6, b"hello\n")
    with pytest.raises(TypeError):
        view[0] = 0
    raw = whole(journal).raw
    del record, journal
    assert bytes(view) == b"hello\n"
    assert bytes(raw).endswith(b"hello\n")


def test_large_appends_become_records_of_at_most_256_kib():
    journal = written([(("stdout", None), b"x" * 600_000, 0)], False)
    records = whole(journal).records()
    assert [len(record) for record in records] == [262144, 262144, 75712]
    assert [record.lines for record in records] == [1, 0, 0]


def test_a_batch_holds_at_least_one_record_and_no_more_than_asked_for():
    journal = written([(("stdout", None), b"x" * 1000, 0)] * 10, False)
    assert len(journal.batch(0, 1)) == 1
    first = journal.batch(0, 2500)
    assert (len(first), first.start) == (2, 0)
    assert journal.batch(first.end, 1 << 20).end == journal.end
    assert journal.batch(journal.end, 1) is None
    journal.release(first.end)
    with pytest.raises(LocalProtocolError, match="is not in the journal"):
        journal.batch(0, 1)


def test_a_complete_journal_takes_nothing_more():
    journal = Journal()
    journal.finish(("OSError", "no room"))
    assert journal.ended
    batch = whole(journal)
    assert (batch.complete, batch.failure(), batch.receipt().records) == (True, ("OSError", "no room"), 1)
    for late in (lambda: journal.append("stdout", b"x", 1, 1), lambda: journal.update({}), journal.finish):
        with pytest.raises(LocalProtocolError):
            late()
    assert journal.end == batch.end


def test_updates_are_merged_and_later_ones_win():
    journal = Journal()
    journal.update({"rc": 1, "stat": (1, 2)})
    journal.update({"rc": 0, "files": ["a", "b"], "got_revision": None})
    journal.gap("log", "a", 5, 1, "masked")
    batch = whole(journal)
    assert batch.updates() == {"rc": 0, "stat": [1, 2], "files": ["a", "b"], "got_revision": None}
    (gap,) = batch.gaps()
    assert (gap.channel, gap.name, gap.bytes, gap.lines, gap.reason) == ("log", "a", 5, 1, "masked")
    assert not batch.complete
    assert batch.failure() is None
    assert batch.receipt() is None


@pytest.mark.parametrize("channel", [("stdin", None), ("stdout", "name"), ("log", None), ("log", "n" * 256)])
def test_a_channel_that_does_not_exist_is_refused(channel):
    with pytest.raises(ValueError, match="no channel"):
        Journal().append(channel[0], b"x", 1, 1, channel[1])
    with pytest.raises(ValueError, match="no channel"):
        Batch.parse(b"").channel_bytes(*channel)


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_bytes_that_are_no_records_are_the_peers_fault(junk, at, byte):
    damaged = bytearray(whole(written([(("log", "a"), b"a\nb", 0)])).raw)
    damaged[at % len(damaged)] = byte
    for data in (junk, bytes(damaged)):
        try:
            batch = Batch.parse(data)
            len(batch)
            Ledger().add(batch)
            batch.records()
            batch.parts()
            batch.updates()
            batch.receipt()
            batch.failure()
        except RemoteProtocolError:
            pass


@given(st.binary(max_size=100), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_transfer_records_are_read_back(data, accessed, modified):
    digest = Blake3()
    digest.update(data)
    assert digest.length == len(data)
    raw = (
        chunk_records(data)
        + utime_record(accessed, modified)
        + unpack_record()
        + close_record(len(data), digest.digest())
    )
    batch = Batch.parse(raw)
    assert b"".join(map(bytes, batch.chunks())) == batch.chunk_bytes() == data
    assert (batch.utime(), batch.unpack, batch.close()) == ((accessed, modified), True, (len(data), digest.digest()))


def test_chunks_are_at_most_a_megabyte():
    data = bytes(range(256)) * 10_000
    batch = Batch.parse(chunk_records(memoryview(data)))
    assert [len(chunk) for chunk in batch.chunks()] == [1 << 20, 1 << 20, len(data) - (2 << 20)]
    assert hashlib.sha256(batch.chunk_bytes()).digest() == hashlib.sha256(data).digest()
    assert len(Batch.parse(chunk_records(b""))) == 0
    assert (Batch.parse(b"").utime(), Batch.parse(b"").unpack, Batch.parse(b"").close()) == (None, False, None)


def test_an_empty_digest_is_blake3s():
    assert Blake3().digest().hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
