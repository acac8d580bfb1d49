"""Recorded conversations of the native wire: how they are written down, made and replayed.

A transcript is a file of JSON lines. The first says which version recorded it and how both sessions were made. Each
line after it is one of

    {"at": side, "do": [method, *arguments]}       a command of that side, in order
    {"at": side, "event": [class, {field: …}]}     what that side was told next
    {"at": side, "taken": [stream, start, data]}   what `take` gave it
    {"from": side, "bytes": data}                  everything that side had to send then, up to the next line

`data` is hexadecimal, with runs of one byte as `(78*5000)`; bytes within values are `{"bytes": data}`.

To replay a transcript for one side is to give it the other side's recorded bytes, to do what it did, and to find that
it sends the recorded bytes and is told the recorded events. Nothing in a session is random but the nonces, which are
given.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

from tailrace import _core
from tailrace.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIDES = ("worker", "master")
FIELDS = {
    "LoginAsked": ("name", "instance", "software", "capabilities"),
    "LoggedIn": ("peer", "software", "capabilities", "version"),
    "Refused": ("reason", "text"),
    "Called": ("call", "method", "args"),
    "Replied": ("call", "value"),
    "CallFailed": ("call", "type", "text"),
    "StreamOpened": ("stream", "role", "name", "offset"),
    "StreamReadable": ("stream",),
    "StreamWritable": ("stream",),
    "StreamProgress": ("stream", "next", "durable", "done"),
    "StreamReset": ("stream", "reason"),
    "StreamStopped": ("stream", "reason"),
    "Ponged": ("nonce",),
    "PeerClosed": ("reason", "text"),
}


def to_digits(data: bytes) -> str:
    """Hexadecimal, long runs of one byte shortened."""
    runs = ((byte, len(list(run))) for byte, run in itertools.groupby(data))
    return "".join(f"({byte:02x}*{count})" if count > 8 else f"{byte:02x}" * count for byte, count in runs)


def from_digits(digits: str) -> bytes:
    pieces = re.findall(r"\(([0-9a-f]{2})\*(\d+)\)|((?:[0-9a-f]{2})+)", digits)
    return b"".join(bytes.fromhex(byte) * int(count) if byte else bytes.fromhex(plain) for byte, count, plain in pieces)


def to_json(value: Any) -> Any:
    match value:
        case bytes():
            return {"bytes": to_digits(value)}
        case dict():
            return {key: to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case _:
            return value


def from_json(value: Any) -> Any:
    match value:
        case {"bytes": digits, **others} if not others:
            return from_digits(digits)
        case dict():
            return {key: from_json(item) for key, item in value.items()}
        case list():
            return [from_json(item) for item in value]
        case _:
            return value


def describe(event: object) -> list[Any]:
    name = type(event).__name__
    return [name, {field: to_json(getattr(event, field)) for field in FIELDS[name]}]


def make(side: str, options: dict[str, Any]) -> _core.Session:
    return _core.Session(side, **{key: from_json(value) for key, value in options.items()})


class Recorder:
    """Two sessions, and the lines of their transcript so far."""

    def __init__(self, worker: dict[str, Any], master: dict[str, Any]) -> None:
        options = {"worker": to_json(worker), "master": to_json(master)}
        self.lines: list[dict[str, Any]] = [{"recorded_by": _core.__version__, "protocol": 1, **options}]
        self.sessions = {side: make(side, options[side]) for side in SIDES}

    def do(self, side: str, method: str, *arguments: Any) -> Any:
        """A command, and what follows from it on both sides."""
        self.lines.append({"at": side, "do": [method, *(to_json(argument) for argument in arguments)]})
        result = getattr(self.sessions[side], method)(*arguments)
        self.settle_down()
        return result

    def take(self, side: str, stream: int, max_bytes: int) -> int:
        """Takes and notes records; returns where they end."""
        batch = self.sessions[side].take(stream, max_bytes)
        self.lines.append({"at": side, "do": ["take", stream, max_bytes]})
        self.lines.append({"at": side, "taken": [stream, batch.start, to_digits(bytes(batch.raw))]})
        return batch.end

    def raw(self, side: str, data: bytes) -> None:
        """Bytes that `side` did not send: what a peer in error, or one that is newer, would have sent."""
        self.lines.append({"from": side, "bytes": to_digits(data), "made_up": True})
        self.sessions[SIDES[side == "worker"]].receive_data(data)
        self.settle_down()

    def settle_down(self) -> None:
        """Carries bytes and notes events until there are no more."""
        moved = True
        while moved:
            moved = False
            for side, other in (SIDES, SIDES[::-1]):
                data = b"".join(iter(self.sessions[side].data_to_send, b""))
                if data:
                    moved = True
                    self.lines.append({"from": side, "bytes": to_digits(data)})
                self._note_events(side)
                if data:
                    self.sessions[other].receive_data(data)
                    self._note_events(other)

    def _note_events(self, side: str) -> None:
        try:
            while (event := self.sessions[side].next_event()) is not None:
                self.lines.append({"at": side, "event": describe(event)})
        except RemoteProtocolError as error:
            note = {"at": side, "event": ["RemoteProtocolError", {"text": str(error)}]}
            if note not in self.lines:
                self.lines.append(note)

    def text(self) -> str:
        return "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in self.lines)


def replay(lines: list[dict[str, Any]], side: str) -> None:
    """Plays one side against the other one's recorded bytes. Raises AssertionError where it behaves in another way."""
    session = make(side, lines[0][side])
    taken: list[Any] = []
    for number, line in enumerate(lines[1:], 2):
        expected, found = _step(session, side, line, taken)
        assert found == expected, f"line {number}: {found} instead of {expected}"
    is_over = any(line.get("at") == side and line.get("event", [""])[0] == "RemoteProtocolError" for line in lines)
    assert session.data_to_send() == b""
    assert is_over or _next(session) is None


def _step(session: _core.Session, side: str, line: dict[str, Any], taken: list[Any]) -> tuple[Any, Any]:
    match line:
        case {"at": other} if other != side:
            return None, None
        case {"do": ["take", stream, max_bytes]}:
            batch = session.take(stream, max_bytes)
            taken[:] = [stream, batch.start, to_digits(bytes(batch.raw))]
        case {"do": [method, *arguments]}:
            getattr(session, method)(*from_json(arguments))
        case {"taken": expected}:
            return expected, taken
        case {"event": expected}:
            return expected, _next(session)
        case {"from": sender, "bytes": digits} if sender != side:
            session.receive_data(from_digits(digits))
        case {"made_up": True}:
            pass
        case {"bytes": digits}:
            return digits, to_digits(b"".join(iter(session.data_to_send, b"")))
    return None, None


def _next(session: _core.Session) -> list[Any] | None:
    try:
        event = session.next_event()
    except RemoteProtocolError as error:
        return ["RemoteProtocolError", {"text": str(error)}]
    return None if event is None else describe(event)


def load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames(lines: list[dict[str, Any]], side: str) -> Iterator[int]:
    """The types of the frames that a side sent."""
    data = b"".join(from_digits(line["bytes"]) for line in lines if line.get("from") == side)
    data = data.removeprefix(b"TAILRACE")
    while len(data) >= 4:
        yield data[0]
        data = data[4 + int.from_bytes(data[1:4], "big") :]
