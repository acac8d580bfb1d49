"""Recorded conversations of Buildbot's own worker and master on msgpack, and a reader of WebSocket that is not ours.

`NAME.jsonl`: {"t": seconds, "dir": "w2m" or "m2w", "hex": what one `recv` gave}. `NAME.decoded.jsonl`: one HTTP head or
one frame a line, as Buildbot's own libraries read it, with long values as their length and digest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec

RECORDINGS = sorted(path for path in (Path(__file__).parent / "msgpack").glob("*.jsonl") if ".decoded" not in path.name)


def received(path):
    """(direction, bytes) in order."""
    lines = [json.loads(line) for line in path.read_text().split("\n") if line]
    return [(line["dir"], bytes.fromhex(line["hex"])) for line in lines]


def spoken(path, direction):
    """All bytes of one direction."""
    return b"".join(data for way, data in received(path) if way == direction)


def decoded(path):
    """What Buildbot's libraries made of it."""
    return [json.loads(line) for line in path.with_suffix(".decoded.jsonl").read_text().split("\n") if line]


def body(path, direction):
    """One direction without its HTTP head."""
    return spoken(path, direction).partition(b"\r\n\r\n")[2]


def read_frames(data):
    """(opcode, payload) of every frame: RFC 6455, section 5.2, in the shortest way."""
    while data:
        opcode, masked, length, at = data[0] & 15, data[1] >> 7, data[1] & 127, 2
        if length >= 126:
            at += 2 if length == 126 else 8
            length = int.from_bytes(data[2:at], "big")
        mask = data[at : at + 4] if masked else bytes(4)
        at += 4 * masked
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data[at : at + length]))
        yield opcode, payload
        data = data[at + length :]


def conversation(path):
    """(direction, message) in order, whole."""
    ways = {way: read_frames(body(path, way)) for way in ("w2m", "m2w")}
    for line in decoded(path):
        if "http" not in line:
            opcode, payload = next(ways[line["dir"]])
            if opcode == 2:
                yield line["dir"], msgspec.msgpack.decode(payload)


def matches(expected, got):
    """Whether a value is what `decoded` shows of it."""
    match expected:
        case {"float": text}:
            return isinstance(got, float) and got == float(text)
        case {"bin": str(text)}:
            return got == text.encode()
        case {"bin": {"hex": digits}}:
            return got == bytes.fromhex(digits)
        case {"bin": {"len": length, "sha256": digest}}:
            return isinstance(got, bytes) and (len(got), hashlib.sha256(got).hexdigest()) == (length, digest)
        case {"str": {"len": length, "sha256": digest}}:
            return isinstance(got, str) and (len(got), hashlib.sha256(got.encode()).hexdigest()) == (length, digest)
        case dict():
            return (
                isinstance(got, dict)
                and got.keys() == expected.keys()
                and all(matches(expected[key], got[key]) for key in expected)
            )
        case list() if (gap := next((i for i, item in enumerate(expected) if is_gap(item)), None)) is not None:
            tail = expected[gap + 1 :]
            head_matches = all(map(matches, expected[:gap], got))
            missing = len(got) - gap - len(tail) == int(expected[gap]["..."].split()[0])
            return head_matches and missing and all(map(matches, tail, got[len(got) - len(tail) :]))
        case list():
            return isinstance(got, list | tuple) and len(got) == len(expected) and all(map(matches, expected, got))
        case _:
            return type(got) is type(expected) and got == expected


def is_gap(item):
    return isinstance(item, dict) and item.keys() == {"..."}
