"""Banana: single values both ways, what is refused, and every recorded byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import BananaDecoder, banana_encode
from tailrace.errors import LocalProtocolError, RemoteProtocolError

from .recordings import NAMES, decode, load, load_units, matches, whole

UNITS = load_units("banana")
LENGTH_MAX = 640 * 1024


def value_of(unit):
    match unit:
        case {"bytes_repeat": byte, "n": count}:
            return bytes.fromhex(byte) * count
        case {"bytes": digits}:
            return bytes.fromhex(digits)
        case {"int": number}:
            return int(number)
        case {"float": digits}:
            return struct.unpack(">d", bytes.fromhex(digits))[0]
        case {"list": items}:
            return [value_of(item) for item in items]
    raise AssertionError(unit)


def decoder_of(dialect="pb"):
    decoder = BananaDecoder()
    if dialect == "pb":
        decoder.use_vocabulary()
    return decoder


def expressions_of(decoder):
    return list(iter(decoder.next_expression, None))


@pytest.mark.parametrize("unit", UNITS["values"], ids=lambda unit: str(unit["value"])[:40])
@pytest.mark.parametrize("dialect", ["pb", "none"])
def test_values_go_both_ways(unit, dialect):
    data, value = bytes.fromhex(unit[dialect]), value_of(unit["value"])
    assert banana_encode(value, dialect == "pb") == data
    for step in (1, len(data)):
        decoder = decoder_of(dialect)
        for start in range(0, len(data), step):
            assert decoder.next_expression() is None
            decoder.receive_data(data[start : start + step])
        decoded = decoder.next_expression()
        assert banana_encode(decoded, dialect == "pb") == data
        assert type(decoded) is type(value)
        assert decoder.next_expression() is None


@pytest.mark.parametrize("unit", UNITS["decode_only"], ids=lambda unit: unit["hex"][:40])
def test_what_encoders_do_not_write_is_read(unit):
    decoder = decoder_of()
    decoder.receive_data(bytes.fromhex(unit["hex"]))
    assert expressions_of(decoder) == [value_of(value) for value in unit["values"]]
    assert len(decoder) == len(unit["left_over"]) // 2


@pytest.mark.parametrize("unit", UNITS["decode_fails"], ids=lambda unit: unit["error"][:60])
@pytest.mark.parametrize("step", [1, 0])
def test_what_is_no_banana_is_refused_for_ever(unit, step):
    data = bytes.fromhex(unit["hex"])
    decoder = decoder_of(unit["dialect"])
    with pytest.raises(RemoteProtocolError, match="banana"):
        for start in range(0, len(data), step or len(data)):
            decoder.receive_data(data[start : start + (step or len(data))])
            decoder.next_expression()
    decoder.receive_data(b"\x00\x81")
    with pytest.raises(RemoteProtocolError):
        decoder.next_expression()


@pytest.mark.parametrize(
    "value",
    [1 << 448, -(1 << 448), bytes(LENGTH_MAX + 1), [0] * (LENGTH_MAX + 1), True, None, "text", [[None]]],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_sent_is_refused_here(value):
    with pytest.raises(LocalProtocolError):
        banana_encode(value)


def test_the_longest_that_may_be_sent():
    for value in (bytes(LENGTH_MAX), (1 << 448) - 1, 1 - (1 << 448)):
        decoder = decoder_of()
        decoder.receive_data(banana_encode(value))
        assert decoder.next_expression() == value


def test_lists_nest_so_deep_and_no_deeper():
    decoder = decoder_of()
    decoder.receive_data(b"\x01\x80" * 100)
    assert decoder.next_expression() is None
    decoder.receive_data(b"\x01\x80")
    with pytest.raises(RemoteProtocolError, match="deeper than 100"):
        decoder.next_expression()
    deep = b""
    for _ in range(101):
        deep = [deep]
    with pytest.raises(LocalProtocolError):
        banana_encode(deep)


def test_an_expression_has_so_many_bytes_and_elements():
    string = banana_encode(bytes(LENGTH_MAX))
    decoder = decoder_of()
    decoder.receive_data(banana_encode([b""] * 100)[:2] + string * 52)
    with pytest.raises(RemoteProtocolError, match="bytes"):
        decoder.next_expression()
    decoder = decoder_of()
    # Lists of empty lists: each costs one byte.
    decoder.receive_data(b"\x02\x80" + 2 * (banana_encode([0] * LENGTH_MAX)[:4] + b"\x80" * LENGTH_MAX))
    with pytest.raises(RemoteProtocolError, match="elements"):
        decoder.next_expression()


def test_the_limits_are_of_one_expression():
    decoder = decoder_of()
    for _ in range(60):
        decoder.receive_data(banana_encode([bytes(LENGTH_MAX)]))
        assert decoder.next_expression() == [bytes(LENGTH_MAX)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [0, 1])
def test_recordings_decode_as_their_own_library_does(name, step):
    packets, shown = load(name)
    for direction in ("m2w", "w2m"):
        expressions = decode(whole(packets, direction), step)
        expected = [sexp for to, sexp in shown if to == direction]
        assert len(expressions) == len(expected)
        for expression, sexp in zip(expressions, expected, strict=True):
            assert matches(expression, sexp), (expression, sexp)


@pytest.mark.parametrize("name", NAMES)
def test_recordings_are_encoded_to_their_own_bytes(name):
    packets, _ = load(name)
    for direction in ("m2w", "w2m"):
        data = whole(packets, direction)
        first, *rest = decode(data, 0)
        assert banana_encode(first, False) + b"".join(map(banana_encode, rest)) == data


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_decoded_alike_however_they_come(data, step):
    def outcome(step):
        decoder, expressions = decoder_of(), []
        try:
            for start in range(0, len(data), step):
                decoder.receive_data(data[start : start + step])
                expressions.extend(iter(decoder.next_expression, None))
        except RemoteProtocolError:
            return repr(expressions), "refused"
        return repr(expressions), "more"

    assert outcome(step) == outcome(max(1, len(data)))
