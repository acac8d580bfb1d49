"""Text is what decoding everything at once would give, wherever the calls begin and end."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import Batch, Journal
from tailrace.link.text import Transcript


def batches(pieces, *, last=True, apart=True):
    """One batch for each piece: (channel, name, bytes). The last has `rc`, `apart` from all others or not."""
    journal, ends = Journal(), [0]
    for channel, name, data in pieces:
        journal.append(channel, data, 0, 0, name)
        ends.append(journal.end)
    if last:
        journal.update({"rc": 0})
        journal.finish()
        if not apart and pieces:
            ends.pop()
        ends.append(journal.end)
    whole = journal.batch(0, 1 << 30)
    raw = bytes(whole.raw) if whole is not None else b""
    return [Batch.parse(raw[a:b], a) for a, b in itertools.pairwise(ends)]


def texts(encoding, pieces, *, apart=True):
    transcript, joined = Transcript(encoding), {}
    for batch in batches(pieces, apart=apart):
        for part in batch.parts():
            for updates in transcript.updates(part):
                for key, value in updates.items():
                    if key == "log":
                        name, text = value
                        joined[key, name] = joined.get((key, name), "") + text
                    elif isinstance(value, str):
                        joined[key, None] = joined.get((key, None), "") + value
    return {key: text for key, text in joined.items() if text}


CHANNELS = st.sampled_from([("stdout", None), ("stderr", None), ("header", None), ("log", "a"), ("log", "b")])
UTF8ISH = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.sampled_from([bytes((b,)) for b in "ż🐢ł€".encode()]),
    st.text(min_size=1, max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@given(
    st.lists(st.tuples(CHANNELS, UTF8ISH), max_size=20),
    st.sampled_from(["utf-8", "UTF8", "no-such-encoding"]),
    st.booleans(),
)
def test_utf8_in_pieces_is_utf8_at_once(pieces, encoding, apart):
    whole = {}
    for channel, data in pieces:
        whole[channel] = whole.get(channel, b"") + data
    expected = {channel: data.decode("utf-8", "replace") for channel, data in whole.items()}
    assert texts(encoding, [(*channel, data) for channel, data in pieces], apart=apart) == expected


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "cp932", "euc-jp", "utf-16-le", "iso2022_jp"])
def test_other_encodings_in_bytes_are_decoded_as_at_once(encoding):
    body = "gr\u00fcn \u6f22\u5b57 ok".encode(encoding, "ignore") + b"\x81"
    pieces = [("stdout", None, body[i : i + 1]) for i in range(len(body))] + [("log", "a", body), ("log", "b", body)]
    expected = body.decode(encoding, "replace")
    assert texts(encoding, pieces) == {
        ("stdout", None): expected,
        ("log", "a"): expected,
        ("log", "b"): expected,
    }


def test_a_character_is_never_torn():
    transcript = Transcript("utf-8")
    first, second, last = batches([("stdout", None, b"a\xe2\x82"), ("stdout", None, b"\xacb")])
    [one] = transcript.updates(first)
    [two] = transcript.updates(second)
    [three] = transcript.updates(last)
    assert (one["stdout"], two["stdout"]) == ("a", "€b")
    assert dict(three) == {"rc": 0}


def test_what_is_decoded_later_is_the_same():
    transcript = Transcript("utf-8")
    everything = [
        updates
        for batch in batches([("stdout", None, b"\xc3"), ("stdout", None, b"\xa4")])
        for updates in transcript.updates(batch)
    ]
    assert [updates.get("stdout") for updates in everything] == ["", "ä", None]
