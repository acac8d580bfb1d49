"""Messages of `msgpack_experimental_v7`: maps with `op` and `seq_number`.

What grows (the pairs of an update) is decoded by its own types, and newline positions, which follow from the text, are
not decoded at all. What is not as it should be becomes one of two errors: `RemoteProtocolError` for what is no message,
`BadMessage` for one that can be answered.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, cast, final

import msgspec

from tailrace.dialects.buildbot.calls import (
    CloseReader,
    CloseWriter,
    Complete,
    Item,
    Read,
    Text,
    Unpack,
    Update,
    Utime,
    Write,
)
from tailrace.dialects.buildbot.spelling import checked_item
from tailrace.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tailrace.dialects.buildbot.calls import Call, Element
    from tailrace.messages import Value

LINE_LENGTH_MAX: Final = 16 << 20
"""What a master of ours allows a worker for one line, in characters. Buildbot's workers lose text in lines that are as
long; and above the size of a message there is no way for it."""

NO_SEPARATOR: Final = "(?!)"
"""A `newline_re` that matches nothing: output is to come as it is."""

SETTINGS: Final[Mapping[str, Value]] = {
    # Much output goes in few messages, little at once.
    "buffer_size": 256 << 10,
    "buffer_timeout": 0.02,
    "newline_re": NO_SEPARATOR,
    "max_line_length": LINE_LENGTH_MAX,
}
"""What a master of ours tells its workers."""

FAILURE: Final = re.compile(r"([A-Za-z_][\w.]*): (.*)", re.DOTALL)
"""`Type: text`."""

# What a worker of Buildbot's makes of an exception: its first line says what it was, the others where.
_TRACEBACK: Final = re.compile(r"\[Failure instance: Traceback[^:\n]*: <class '(?:\w+\.)*(\w+)'>: (.*)")
_NEWLINE: Final = re.compile("\n")
_TEXTS: Final = frozenset({"stdout", "stderr", "header"})


@final
class BadMessage(Exception):
    """A message that is answered with this text."""


@final
class Incoming(msgspec.Struct, frozen=True):
    """Any message; what it does not have is unset."""

    op: str | None = None
    seq_number: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    is_exception: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    args: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    command_id: str | None = None
    command_name: str | None = None
    builder_name: str | None = None
    message: str | None = None
    why: str | None = None
    length: int | None = None
    access_time: float | None = None
    modified_time: float | None = None


VALUE_BYTES_MAX: Final = 16 << 20
"""The largest value that is no text, and the largest block of a file: small things take much room when decoded."""

PAIRS_MAX: Final = 65536
"""How many pairs one update may have."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_MESSAGE: Final = msgspec.msgpack.Decoder(Incoming)
_PAIRS: Final = msgspec.msgpack.Decoder(Annotated[list[tuple[str, msgspec.Raw]], msgspec.Meta(max_length=PAIRS_MAX)])
_LINES: Final = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw, list[float]])
_LOG: Final = msgspec.msgpack.Decoder(tuple[str, tuple[str, msgspec.Raw, list[float]]])
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def encode(message: Mapping[str, object]) -> bytes:
    """A message's bytes.

    Raises:
        LocalProtocolError: it holds what the wire cannot carry.
    """
    try:
        return _ENCODER.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LocalProtocolError(f"this cannot be sent: {error}") from None


def decode(data: bytes) -> Incoming:
    """One message.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        return _MESSAGE.decode(data)
    except _MALFORMED as error:
        raise RemoteProtocolError(f"not a message: {error}") from None


def value(raw: msgspec.Raw | msgspec.UnsetType) -> Value:
    """Any value of the wire. Extension types are none.

    Raises:
        BadMessage: it is no such value.
    """
    if isinstance(raw, msgspec.UnsetType):
        return None
    if len(memoryview(raw)) > VALUE_BYTES_MAX:
        raise BadMessage(f"a value of more than {VALUE_BYTES_MAX} bytes")
    try:
        return _plain(msgspec.msgpack.decode(raw, ext_hook=_no_extension))
    except _MALFORMED as error:
        raise BadMessage(str(error)) from None


def is_exception(message: Incoming) -> bool:
    """Whether an answer is an error. The key says it, whatever its value, as with Buildbot's ends."""
    return not isinstance(message.is_exception, msgspec.UnsetType)


def file_data(raw: msgspec.Raw | msgspec.UnsetType) -> bytes | str:
    """A block of a file; `str` is only ever empty.

    Raises:
        BadMessage: it is something else.
    """
    if isinstance(raw, msgspec.UnsetType):
        raise _missing("args")
    data = value(raw)
    if isinstance(data, bytes) or data == "":
        return data
    raise BadMessage(f"a block of a file is `bin`, not {type(data).__name__}")


# ---------------------------------------------------------------- a worker's calls


def encode_call(call: Call, *, directory: bool = False, terse: bool = False) -> dict[str, object]:
    """All but the number. `directory`: what is uploaded is one. `terse`: for a master that finds newlines itself."""
    message: dict[str, object] = {"command_id": call.command}
    match call:
        case Update(_, elements):
            message |= {"op": "update", "args": [_encode_element(element, terse) for element in elements]}
        case Complete(_, failure):
            message |= {"op": "complete", "args": None if failure is None else spoken(*failure)}
        case Write(_, data):
            kind = "directory" if directory else "file"
            message |= {"op": f"update_upload_{kind}_write", "args": data}
        case CloseWriter():
            message |= {"op": "update_upload_file_close"}
        case Utime(_, accessed, modified):
            message |= {"op": "update_upload_file_utime", "access_time": accessed, "modified_time": modified}
        case Unpack():
            message |= {"op": "update_upload_directory_unpack"}
        case Read(_, length):
            message |= {"op": "update_read_file", "length": length}
        case CloseReader():
            message |= {"op": "update_read_file_close"}
    return message


def decode_call(message: Incoming) -> Call | None:
    """A worker's call; `None`: no such op.

    Raises:
        BadMessage: it lacks something, or that is wrong.
    """
    match message.op:
        case "update":
            return Update(_command(message), tuple(_elements(message)))
        case "complete":
            return Complete(_command(message), _failure(value(message.args)))
        case "update_upload_file_write" | "update_upload_directory_write":
            data = file_data(message.args)
            return Write(_command(message), data if isinstance(data, bytes) else b"")
        case "update_upload_file_close":
            return CloseWriter(_command(message))
        case "update_upload_file_utime":
            return Utime(_command(message), message.access_time, message.modified_time)
        case "update_upload_directory_unpack":
            return Unpack(_command(message))
        case "update_read_file":
            if message.length is None:
                raise _missing("length")
            return Read(_command(message), message.length)
        case "update_read_file_close":
            return CloseReader(_command(message))
        case _:
            return None


def _command(message: Incoming) -> str:
    if message.command_id is None:
        raise _missing("command_id")
    return message.command_id


def _missing(key: str) -> BadMessage:
    # As Buildbot's ends say it, with its quotes.
    return BadMessage(f"'message did not contain obligatory \"{key}\" key'")


def need(text: str | None, key: str) -> str:
    """What a message must have.

    Raises:
        BadMessage: it does not.
    """
    if text is None:
        raise _missing(key)
    return text


def _failure(args: Value) -> tuple[str, str] | None:
    if args is None:
        return None
    text = args if isinstance(args, str) else repr(args)
    found = _TRACEBACK.match(text)
    return (found[1], found[2]) if found is not None else said(text)


def said(text: str) -> tuple[str, str]:
    """An error's type and text: of ours as it was, of Buildbot's as one text."""
    found = FAILURE.fullmatch(text)
    return (found[1], found[2]) if found is not None else ("RemoteError", text)


def spoken(kind: str, text: str) -> str:
    """An error's type and text, as `said` reads them."""
    return text if kind == "RemoteError" and text else f"{kind}: {text}"


def _encode_element(element: Element, terse: bool) -> Sequence[object]:
    if isinstance(element, Item):
        return (element.key, element.value)
    lines = (element.text, () if terse else _newlines(cast("str", element.text)), element.times)
    return ("log", (element.name, lines)) if element.channel == "log" else (element.channel, lines)


def _newlines(text: str) -> list[int]:
    """Where they are, counted in characters."""
    # Half of what sending a log costs, and this is the fastest way.
    return [found.start() for found in _NEWLINE.finditer(text)]


def _elements(message: Incoming) -> list[Element]:
    if isinstance(message.args, msgspec.UnsetType):
        raise _missing("args")
    try:
        return [_element(key, raw) for key, raw in _PAIRS.decode(message.args)]
    except _MALFORMED as error:
        raise BadMessage(str(error)) from None


def _element(key: str, raw: msgspec.Raw) -> Element:
    if key in _TEXTS:
        text, _, times = _LINES.decode(raw)
        return Text(key, None, text, times)
    if key == "log":
        name, (text, _, times) = _LOG.decode(raw)
        return Text("log", name, text, times)
    return checked_item(key, value(raw))


def _plain(item: object) -> Value:
    """As it is, if it holds only what our values hold."""
    match item:
        case None | bool() | int() | float() | str() | bytes():
            return item
        case list():
            return [_plain(part) for part in item]
        case dict():
            if not all(isinstance(key, str) for key in item):
                raise ValueError("a map's keys are text")
            return {key: _plain(part) for key, part in item.items()}
        case _:
            raise ValueError(f"{type(item).__name__} is no value of this wire")


def _no_extension(code: int, data: memoryview) -> object:
    raise ValueError(f"extension type {code}")
