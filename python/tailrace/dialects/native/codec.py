"""Calls of the native wire ⇄ messages (PROTOCOL.md section 4).

Unknown keys are skipped, wrong types are the peer's fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, assert_never, cast

from tailrace.errors import LocalProtocolError, RemoteProtocolError, Unsupported
from tailrace.messages import (
    AskShutdown,
    ForgetCommand,
    GetWorkerInfo,
    Held,
    HeldCommand,
    ImplKind,
    InterruptCommand,
    Print,
    ResumeCommand,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tailrace.messages import Request, Value

T = TypeVar("T")


def encode_request(request: Request) -> tuple[str, dict[str, Value]]:  # noqa: C901 - one row for each method
    """A message as (method, arguments)."""
    match request:
        case Print(message):
            return "print", {"message": message}
        case GetWorkerInfo():
            return "getWorkerInfo", {}
        case SetBuilderList(builders):
            return "setBuilderList", {"builders": builders}
        case StartBuild(builder):
            return "startBuild", {"builder": builder}
        case StartCommand():
            return "startCommand", {
                "builder": request.builder,
                "command": request.command,
                "name": request.name,
                "args": request.args,
                "impls": request.impls,
            }
        case InterruptCommand(builder, command, why):
            return "interruptCommand", {"builder": builder, "command": command, "why": why}
        case Shutdown():
            return "shutdown", {}
        case ResumeCommand(command, next_, chain, upload):
            resumed: dict[str, Value] = {"command": command, "next": next_, "chain": chain}
            return "resumeCommand", resumed if upload is None else {**resumed, "upload": upload}
        case ForgetCommand(command):
            return "forgetCommand", {"command": command}
        case Held(commands):
            return "held", {"commands": [_encode_held(held) for held in commands]}
        case AskShutdown():
            raise LocalProtocolError("this wire has no way to ask for an end: close with `draining`")
    assert_never(request)


def decode_request(role: str, method: str, args: Mapping[str, Value]) -> Request:
    """What the peer calls, at the side that has this `role`.

    Raises:
        Unsupported: there is no such method on this side; the caller can be told.
        RemoteProtocolError: its arguments are not what PROTOCOL.md says.
    """
    decode = (_AT_WORKER if role == "worker" else _AT_MASTER).get(method)
    if decode is None:
        raise Unsupported("tailrace", f"no method {method[:64]!r} at a {role}")
    return decode(args)


def _encode_held(held: HeldCommand) -> dict[str, Value]:
    return {
        "command": held.command,
        "builder": held.builder,
        "name": held.name,
        "begin": held.begin,
        "end": held.end,
        "chain": held.chain,
        "state": "running" if held.running else "complete",
    }


def _decode_held(value: Value) -> HeldCommand:
    entry = _as_map(value, "commands")
    return HeldCommand(
        command=_get(entry, "command", str),
        builder=_get(entry, "builder", str),
        name=_get(entry, "name", str),
        begin=_get(entry, "begin", int),
        end=_get(entry, "end", int),
        chain=_get(entry, "chain", bytes),
        running=_get(entry, "state", str) == "running",
    )


def _decode_set_builder_list(args: Mapping[str, Value]) -> SetBuilderList:
    builders: list[tuple[str, str]] = []
    for pair in _get(args, "builders", list):
        match pair:
            case [str(name), str(directory)]:
                builders.append((name, directory))
            case _:
                raise RemoteProtocolError(f"a builder is [name, directory], not {pair!r:.80}")
    return SetBuilderList(tuple(builders))


def _decode_start_command(args: Mapping[str, Value]) -> StartCommand:
    impls = _as_map(args.get("impls", {}), "impls")
    for kind in impls.values():
        if kind not in ("FileWriter", "FileReader"):
            raise RemoteProtocolError(f"an argument stands for a FileWriter or a FileReader, not for {kind!r:.80}")
    return StartCommand(
        builder=_get(args, "builder", str),
        command=_get(args, "command", str),
        name=_get(args, "name", str),
        args=_as_map(args.get("args", {}), "args"),
        impls=cast("Mapping[str, ImplKind]", impls),
    )


_AT_WORKER: dict[str, Callable[[Mapping[str, Value]], Request]] = {
    "print": lambda args: Print(_get(args, "message", str)),
    "getWorkerInfo": lambda args: GetWorkerInfo(),
    "setBuilderList": _decode_set_builder_list,
    "startBuild": lambda args: StartBuild(_get(args, "builder", str)),
    "startCommand": _decode_start_command,
    "interruptCommand": lambda args: InterruptCommand(
        _get(args, "builder", str), _get(args, "command", str), _get(args, "why", str)
    ),
    "shutdown": lambda args: Shutdown(),
    "resumeCommand": lambda args: ResumeCommand(
        _get(args, "command", str), _get(args, "next", int), _get(args, "chain", bytes), _get_offset(args, "upload")
    ),
    "forgetCommand": lambda args: ForgetCommand(_get(args, "command", str)),
}

_AT_MASTER: dict[str, Callable[[Mapping[str, Value]], Request]] = {
    "held": lambda args: Held(tuple(_decode_held(entry) for entry in _get(args, "commands", list))),
}


def _get(args: Mapping[str, Value], key: str, kind: type[T]) -> T:
    value = args.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RemoteProtocolError(f"{key!r} must be {kind.__name__}, not {value!r:.80}")
    return value


def _get_offset(args: Mapping[str, Value], key: str) -> int | None:
    """An offset that may be missing."""
    return _get(args, key, int) if key in args else None


def _as_map(value: Value, key: str) -> Mapping[str, Value]:
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"{key!r} must be a map, not {value!r:.80}")
    return value
