"""Recordings of Buildbot's own ends, and what was decoded of them with its own library."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tailrace._core import BananaDecoder

DIRECTORY = Path(__file__).parents[3] / "transcripts" / "buildbot" / "pb"
NAMES = sorted(path.name.removesuffix(".decoded.jsonl") for path in DIRECTORY.glob("*.decoded.jsonl"))
# Whose passwords they were made with.
SECRETS = {"sendchange": b"changepw"}


def load_units(name):
    return json.loads((DIRECTORY / f"units-{name}.json").read_text())


def load(name):
    """[(direction, bytes)] of each packet, and [(direction, expression)] as Buildbot's library decoded it."""
    packets = [json.loads(line) for line in (DIRECTORY / f"{name}.jsonl").read_text().split("\n") if line]
    decoded = [json.loads(line) for line in (DIRECTORY / f"{name}.decoded.jsonl").read_text().split("\n") if line]
    return (
        [(packet["dir"], bytes.fromhex(packet["hex"])) for packet in packets],
        [(message["dir"], message["sexp"]) for message in decoded],
    )


def whole(packets, direction):
    """All bytes of one direction."""
    return b"".join(data for to, data in packets if to == direction)


def decode(data, step):
    """The expressions of one direction of a session."""
    decoder = BananaDecoder()
    expressions = []
    for start in range(0, len(data), step or len(data)):
        decoder.receive_data(data[start : start + (step or len(data))])
        while (expression := decoder.next_expression()) is not None:
            expressions.append(expression)
            # The first is the choice of a profile; vocabulary is spoken from there on.
            decoder.use_vocabulary()
    assert len(decoder) == 0
    return expressions


def matches(expression, shown):
    """Whether that is what is shown: long strings as their digest, bytes that are no text as hex."""
    if isinstance(expression, list):
        return isinstance(shown, list) and len(expression) == len(shown) and all(map(matches, expression, shown))
    if isinstance(expression, bytes):
        return _matches_bytes(expression, shown)
    if isinstance(expression, float):
        return expression == float(shown["float"])
    return expression == shown


def _matches_bytes(data, shown):
    match shown:
        case str():
            return data.decode("utf-8") == shown
        case {"hex": digits}:
            return data.hex() == digits
        case {"len": length, "sha256": digest}:
            return len(data) == length and hashlib.sha256(data).hexdigest() == digest
    return False
