"""Memory is taken by what has come, never by what was announced: on both wires, on both sides, at every stage.

A peer announces 2^31 bytes, and then sends one at a time. What Rust and Python allocate, touched or not, is seen in the
size of the process.
"""

from __future__ import annotations

import resource
import tracemalloc
from pathlib import Path

import pytest

from tailrace._core import banana_encode
from tailrace.errors import RemoteProtocolError

from .msgpack import test_dialect as msgpack
from .msgpack.pair import make_master as make_msgpack_master
from .msgpack.pair import make_worker as make_msgpack_worker
from .pb import test_dialect as pb

GROWTH_BYTES_MAX = 16 << 20
ONE_BY_ONE = 20_000


def process_bytes():
    """What the process has mapped, and what of it is resident."""
    mapped, resident, *_ = Path("/proc/self/statm").read_text().split()
    return int(mapped) * resource.getpagesize(), int(resident) * resource.getpagesize()


def drip(end, announcement, then):
    """The announcement, and then `then` over and over, one byte at a time: what the error says, if there is one."""
    try:
        end.receive_data(announcement)
        while end.next_event() is not None:
            pass
        for number in range(ONE_BY_ONE):
            end.receive_data(then[number % len(then) :][:1])
            while end.next_event() is not None:
                pass
    except RemoteProtocolError as error:
        end.data_to_send(1 << 20)
        return str(error)
    return None


def check_drip(end, announcement, then, expected):
    """Memory stays where it was; and the error is this one."""
    mapped, resident = process_bytes()
    tracemalloc.start()
    try:
        said = drip(end, announcement, then)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    now_mapped, now_resident = process_bytes()
    assert peak < GROWTH_BYTES_MAX
    assert now_mapped - mapped < GROWTH_BYTES_MAX
    assert now_resident - resident < GROWTH_BYTES_MAX
    if expected is None:
        assert said is None
    else:
        assert said is not None
        assert expected in said


# ---------------------------------------------------------------- Perspective Broker


def digits(number):
    """Base 128, the lowest digit first."""
    return bytes([number & 0x7F]) + (digits(number >> 7) if number >> 7 else b"")


LIST, INT, STRING = b"\x80", b"\x81", b"\x82"
LONGEST = 640 * 1024
BANANA = {
    "a string": (digits(1 << 31) + STRING, b"x", "a string longer than"),
    "a list": (digits(1 << 31) + LIST, b"\0" + INT, "a list longer than"),
    "an integer": (b"\x7f", b"\x7f", "a prefix of more than 64 bytes"),
    "the longest string": (digits(LONGEST) + STRING, b"x", None),
    "the longest list": (digits(LONGEST) + LIST, b"\0" + INT, None),
    "lists in lists": ((digits(LONGEST) + LIST) * 100, b"\0" + INT, None),
    "lists in lists in lists": (b"", digits(LONGEST) + LIST, "lists nest deeper than"),
}


def pb_ends(stage):
    """Both sides at this stage."""
    pair = pb.make_pair()
    if stage == "agreed":
        # The profile, and nothing more.
        pair.master.receive_data(banana_encode(b"pb", False))
        pair.worker.receive_data(banana_encode((b"pb", b"none"), False))
    elif stage == "attached":
        pair.log_in()
    for end in (pair.master, pair.worker):
        end.next_event()
    return {"master": pair.master, "worker": pair.worker}


@pytest.mark.parametrize("role", ["master", "worker"])
@pytest.mark.parametrize("stage", ["new", "agreed", "attached"])
@pytest.mark.parametrize("what", BANANA)
def test_pb(role, stage, what):
    announcement, then, expected = BANANA[what]
    check_drip(pb_ends(stage)[role], announcement, then, expected)


# ---------------------------------------------------------------- msgpack


def head(length, *, masked, opcode=2, fin=True):
    """The head of a frame of WebSocket."""
    return bytes([fin << 7 | opcode, masked << 7 | 127]) + length.to_bytes(8, "big") + bytes(4 * masked)


def small(payload, *, masked, opcode):
    return bytes([opcode, masked << 7 | len(payload)]) + bytes(4 * masked) + payload


FRAMES = {
    "a message": (lambda masked: head(1 << 31, masked=masked), b"x", "exceeds limit"),
    "the largest message": (lambda masked: head(79 << 20, masked=masked), b"x", None),
    "a fragment": (lambda masked: head(1 << 31, masked=masked, fin=False), b"x", "exceeds limit"),
    "a fragment more": (
        lambda masked: small(b"x", masked=masked, opcode=2) + head(1 << 31, masked=masked, opcode=0),
        b"x",
        "exceeds limit",
    ),
    "a ping": (lambda masked: head(1 << 31, masked=masked, opcode=9), b"x", "exceeds limit"),
}
ANNOUNCED = (1 << 31).to_bytes(4, "big")
VALUES = {
    "an array": b"\xdd" + ANNOUNCED,
    "a map": b"\xdf" + ANNOUNCED,
    "bytes": b"\xc6" + ANNOUNCED,
    "text": b"\xdb" + ANNOUNCED,
    "an extension": b"\xc9" + ANNOUNCED + b"\x05",
}


def msgpack_end(role):
    return msgpack.TheirWorker().ours if role == "master" else msgpack.TheirMaster().ours


@pytest.mark.parametrize("role", ["master", "worker"])
@pytest.mark.parametrize("what", FRAMES)
def test_msgpack_frames(role, what):
    make, then, expected = FRAMES[what]
    check_drip(msgpack_end(role), make(role == "master"), then, expected)


@pytest.mark.parametrize("role", ["master", "worker"])
@pytest.mark.parametrize("key", ["args", "result", "unknown"])
@pytest.mark.parametrize("what", VALUES)
def test_msgpack_values(role, key, what):
    message = b"\x83\xa2op\xa6update\xaaseq_number\x00" + bytes([0xA0 | len(key)]) + key.encode() + VALUES[what]
    data = msgpack.frame(message, masked=role == "master")
    check_drip(msgpack_end(role), data, b"x", "not a message")


ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n"
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\n"
HANDSHAKES = {
    "a line": ("master", b"GET /", b"x", "no WebSocket"),
    "a header": ("master", b"GET / HTTP/1.1\r\nX: ", b"x", "no WebSocket"),
    "headers": ("master", b"GET / HTTP/1.1\r\n", b"X: y\r\n", "no WebSocket"),
    "a body": ("master", b"GET / HTTP/1.1\r\nContent-Length: 2147483648\r\n\r\n", b"x", "no WebSocket"),
    "an answer": ("worker", b"HTTP/1.1 101 ", b"x", "no WebSocket"),
    "an answer's headers": ("worker", ANSWER, b"X: y\r\n", "no WebSocket"),
    "an answer's body": ("worker", REFUSAL + b"Content-Length: 2147483648\r\n\r\n", b"x", "no WebSocket"),
    "an answer without an end": ("worker", REFUSAL + b"\r\n", b"x", None),
    "an answer in chunks": (
        "worker",
        REFUSAL + b"Transfer-Encoding: chunked\r\n\r\n80000000\r\n",
        b"x",
        "no WebSocket",
    ),
}


@pytest.mark.parametrize("what", HANDSHAKES)
def test_msgpack_handshakes(what):
    role, announcement, then, expected = HANDSHAKES[what]
    end = make_msgpack_master() if role == "master" else make_msgpack_worker()
    check_drip(end, announcement, then, expected)
