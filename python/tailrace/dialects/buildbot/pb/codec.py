"""Buildbot's methods on Perspective Broker ⇄ messages and calls.

Which objects there are, who calls what on them, and what the arguments look like (pb.md section 5). Text from a peer of
Python 2 may be bytes; what a file holds never is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never, cast, final

import attrs

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
from tailrace.dialects.buildbot.pb.failures import NoSuchMethodError, describe, failure
from tailrace.dialects.buildbot.pb.jelly import Failure, Remote, as_text
from tailrace.dialects.buildbot.pb.objects import (
    Bot,
    CommandObject,
    MasterObject,
    ReaderObject,
    WorkerBuilder,
    WriterObject,
)
from tailrace.dialects.buildbot.pb.spelling import BLOCK_BYTES_MAX
from tailrace.dialects.buildbot.spelling import checked_item, decoded
from tailrace.messages import (
    GetWorkerInfo,
    InterruptCommand,
    Print,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
)

if TYPE_CHECKING:
    from tailrace.dialects.buildbot.calls import Call, Element
    from tailrace.messages import ImplKind, Request, Value

# ---------------------------------------------------------------- values


def as_value(value: object) -> Value:
    """What a peer sent as a value of ours.

    Raises:
        TypeError: it is none.
    """
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case dict():
            return {as_text(key): as_value(item) for key, item in value.items()}
        case tuple():
            return tuple(map(as_value, value))
        case list():
            return list(map(as_value, value))
        case set() | frozenset():
            return [as_value(item) for item in value]
        case _:
            raise TypeError(f"a {type(value).__name__} is not taken here")


def as_texts(value: object) -> Value:
    """The same, where no bytes are meant: a peer of Python 2 sends its text so."""
    return _texts(as_value(value))


def _texts(value: Value) -> Value:
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case Mapping():
            return {key: _texts(item) for key, item in value.items()}
        case tuple():
            return tuple(map(_texts, value))
        case list():
            return list(map(_texts, value))
        case _:
            return value


# ---------------------------------------------------------------- master to worker


@final
@attrs.frozen
class Start:
    """A `StartCommand` together with the master's objects."""

    request: StartCommand
    command: Remote
    writer: Remote | None
    reader: Remote | None


Served: TypeAlias = "Request | Start | str | None"
"""A request for `link`; or what is answered here: `None`, or `getVersion` and the like by name."""


def decode_bot(method: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Served:
    """What a master calls on the worker.

    Raises:
        NoSuchMethodError, TypeError, ValueError: the call is to fail with it.
    """
    match method:
        case "print":
            [message] = _positional(("message",), args, kwargs)
            return Print(as_text(message))
        case "getWorkerInfo" | "getSlaveInfo":
            return GetWorkerInfo()
        case "setBuilderList":
            [wanted] = _positional(("wanted",), args, kwargs)
            return SetBuilderList(tuple(_pair(pair) for pair in _list(wanted)))
        case "shutdown":
            return Shutdown()
        case "getVersion":
            return method
        case _:
            raise NoSuchMethodError(Bot(), method)


def decode_builder(builder: str, method: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Served:
    """What a master calls on a builder of the worker's. Raises as `decode_bot`."""
    match method:
        case "startBuild":
            return StartBuild(builder)
        case "startCommand":
            return _decode_start(builder, _positional(("command_ref", "command_id", "command", "args"), args, kwargs))
        case "interruptCommand":
            command, why = _positional(("command_id", "why"), args, kwargs)
            return InterruptCommand(builder, as_text(command), as_text(why))
        case "print":
            [message] = _positional(("message",), args, kwargs)
            return Print(as_text(message))
        case "setMaster":
            return None
        case "shutdown":
            return Shutdown()
        case _:
            raise NoSuchMethodError(WorkerBuilder(builder), method)


def _decode_start(builder: str, given: Sequence[object]) -> Start:
    reference, command, name, args = given
    if not isinstance(reference, Remote) or not isinstance(args, dict):
        raise TypeError("startCommand takes a command, its id, its name and a dictionary")
    named = {as_text(key): value for key, value in args.items()}
    objects = {key: value for key, value in named.items() if isinstance(value, Remote)}
    impls: dict[str, ImplKind] = {}
    for key in objects:
        if key not in ("writer", "reader"):
            raise TypeError(f"{key!r} is no reference to anything known")
        impls[key] = "FileWriter" if key == "writer" else "FileReader"
    request = StartCommand(
        builder=builder,
        command=as_text(command),
        name=as_text(name),
        args={key: decoded(as_value(value)) for key, value in named.items() if key not in objects},
        impls=impls,
    )
    return Start(request, reference, objects.get("writer"), objects.get("reader"))


# ---------------------------------------------------------------- worker to master

# What a worker of Python 2 sends in one dictionary has no order: output goes first.
_OUTPUT: Final = ("header", "stdout", "stderr", "log")


def decode_object(target: MasterObject, method: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Call:
    """What a worker calls on a command, or on its file.

    Raises:
        NoSuchMethodError, TypeError, ValueError: the call is to fail with it.
    """
    command = target.command
    match target, method:
        case CommandObject(), "update":
            [updates] = _positional(("updates",), args, kwargs)
            return Update(command, tuple(_elements(updates)))
        case CommandObject(), "complete":
            [failed] = _positional(("failure",), args or (None,), kwargs)
            return Complete(command, _decode_failure(failed))
        case WriterObject(), "write":
            [data] = _positional(("data",), args, kwargs)
            return Write(command, _data(data))
        case WriterObject(), "close":
            return CloseWriter(command)
        case WriterObject(), "utime":
            [times] = _positional(("accessed_modified",), args, kwargs)
            accessed, modified = _list(times)
            return Utime(command, _seconds(accessed), _seconds(modified))
        case WriterObject(), "unpack":
            return Unpack(command)
        case ReaderObject(), "read":
            [length] = _positional(("maxlength",), args, kwargs)
            if not isinstance(length, int) or length < 1:
                raise ValueError(f"read at least 1 byte, not {length!r:.20}")
            return Read(command, min(length, BLOCK_BYTES_MAX))
        case ReaderObject(), "close":
            return CloseReader(command)
        case _:
            raise NoSuchMethodError(target, method)


def encode_call(call: Call) -> tuple[type[MasterObject], str, tuple[object, ...]]:
    """A worker's call: on which of the command's objects, the method, and its arguments."""
    match call:
        case Update(_, elements):
            return CommandObject, "update", (encode_elements(elements),)
        case Complete(_, failed):
            return CommandObject, "complete", (None if failed is None else failure(*failed),)
        case Write(_, data):
            return WriterObject, "write", (data,)
        case CloseWriter():
            return WriterObject, "close", ()
        case Utime(_, accessed, modified):
            return WriterObject, "utime", ((accessed, modified),)
        case Unpack():
            return WriterObject, "unpack", ()
        case Read(_, length):
            return ReaderObject, "read", (length,)
        case CloseReader():
            return ReaderObject, "close", ()
    assert_never(call)


def encode_elements(elements: Sequence[Element]) -> list[object]:
    """What an update holds."""
    return [[_encode_element(element), 0] for element in elements]


def _encode_element(element: Element) -> dict[str, object]:
    if isinstance(element, Item):
        value = tuple(cast("Sequence[object]", element.value)) if element.key == "stat" else element.value
        return {element.key: value}
    if element.channel == "log":
        return {"log": (element.name, element.text)}
    return {element.channel: element.text}


def _elements(updates: object) -> list[Element]:
    elements: list[Element] = []
    for update in _list(updates):
        entries = _list(update)[0]
        if not isinstance(entries, dict):
            raise TypeError("an update is a dictionary and a number")
        named = {as_text(key): value for key, value in entries.items()}
        elements.extend(_element(key, named[key]) for key in (sorted(named, key=_rank) if len(named) > 1 else named))
    return elements


def _rank(key: str) -> int:
    return _OUTPUT.index(key) if key in _OUTPUT else len(_OUTPUT)


def _element(key: str, value: object) -> Element:
    if key == "log":
        name, text = _list(value)
        return Text("log", as_text(name), _output(text))
    if key in _OUTPUT:
        return Text(key, None, _output(value))
    return checked_item(key, as_texts(value))


def _output(value: object) -> str | bytes:
    if isinstance(value, str | bytes):
        return value
    raise TypeError(f"output is text, not {type(value).__name__}")


def _decode_failure(value: object) -> tuple[str, str] | None:
    if value is None:
        return None
    if isinstance(value, Failure):
        return describe(value)
    return "RemoteError", repr(value)[:1000]


def _data(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise TypeError(f"a file's data is bytes, not {type(value).__name__}")


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    raise TypeError(f"a time is a number, not {type(value).__name__}")


# ---------------------------------------------------------------- arguments


def _positional(names: tuple[str, ...], args: Sequence[object], kwargs: Mapping[str, object]) -> Sequence[object]:
    """Exactly these arguments, by place or by name."""
    rest = names[len(args) :]
    if len(args) + len(kwargs) != len(names) or not all(name in kwargs for name in rest):
        raise TypeError(f"the arguments are {', '.join(names)}")
    return [*args, *(kwargs[name] for name in rest)]


def _list(value: object) -> Sequence[object]:
    if isinstance(value, list | tuple):
        return value
    raise TypeError(f"a list is wanted, not a {type(value).__name__}")


def _pair(value: object) -> tuple[str, str]:
    name, directory = _list(value)
    return as_text(name), as_text(directory)
