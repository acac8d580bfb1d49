"""Commands' arguments as a worker on Perspective Broker wants them, which depends on its age.

The names are the worker's own: `uploadFile`, `workersrc`, paths relative to the builder's directory. What newer workers
require is filled in, what older ones do not know is left out or said in their words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tailrace.dialects.buildbot.spelling import with_defaults
from tailrace.errors import LocalProtocolError

if TYPE_CHECKING:
    from tailrace.messages import Value

BLOCK_BYTES_MAX: Final = 640 * 1024
"""A block is one string of banana."""

Version = tuple[int, ...]
NEWEST: Final[Version] = (3, 3)

_TRANSFERS: Final = frozenset({"uploadFile", "uploadDirectory", "downloadFile"})
# An argument → the version that brought it. Before, it has no effect, and may be refused.
_SINCE: Final[Mapping[str, Version]] = {
    "usePTY": (2, 7),
    "keepstamp": (2, 13),
    "interruptSignal": (2, 15),
    "sigtermTime": (2, 16),
    "max_lines": (3, 3),
}
_RENAMED: Final[Version] = (3, 0)
_OLD_NAMES: Final = {"workersrc": "slavesrc", "workerdest": "slavedest"}
_REMOVES_LISTS: Final[Version] = (2, 14)
_OBFUSCATES: Final[Version] = (2, 16)


def parse_version(text: str) -> Version:
    """`2.16` as numbers. What is none counts as the newest."""
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        return NEWEST


def spell(
    name: str, args: Mapping[str, Value], commands: Mapping[str, Version], *, takes_text: bool = True
) -> tuple[str, dict[str, Value]]:
    """A command and its arguments for a worker that has these `commands`.

    `takes_text`: not a worker of Python 2, which wants what is not ASCII as bytes.

    Raises:
        LocalProtocolError: this worker is too old for it.
    """
    if name == "rmfile" and commands and name not in commands:
        # `rm -rf` removes a file too.
        name, args = "rmdir", {"dir": args.get("path")}
    version = commands.get(name, NEWEST)
    spelled = with_defaults(name, args)
    for argument, since in _SINCE.items():
        if version < since:
            spelled.pop(argument, None)
    _spell_specials(name, spelled, version)
    if version < _RENAMED:
        spelled = {_OLD_NAMES.get(argument, argument): value for argument, value in spelled.items()}
    return name, spelled if takes_text else {argument: _as_bytes(value) for argument, value in spelled.items()}


def _spell_specials(name: str, args: dict[str, Value], version: Version) -> None:
    if name == "shell":
        if "command" in args:
            args["command"] = _spell_words(args["command"], version)
        if args.get("logfiles") is None:
            args.pop("logfiles", None)
    elif name in _TRANSFERS:
        size = args["blocksize"]
        args["blocksize"] = min(size, BLOCK_BYTES_MAX) if isinstance(size, int) else BLOCK_BYTES_MAX
    elif name in ("mkdir", "rmdir"):
        args["dir"] = _spell_directories(name, args.get("dir"), version)


def _spell_words(command: Value, version: Version) -> Value:
    """With words that are not to be shown as tuples."""
    if not isinstance(command, Sequence) or isinstance(command, str | bytes | bytearray | memoryview):
        return command
    words: list[Value] = []
    for word in command:
        match word:
            case ("obfuscated", real, shown) | ["obfuscated", real, shown]:
                words.append(("obfuscated", real, shown) if version >= _OBFUSCATES else real)
            case _:
                words.append(word)
    return words


def _spell_directories(name: str, directories: Value, version: Version) -> Value:
    if not isinstance(directories, list | tuple):
        return directories
    if len(directories) == 1:
        return directories[0]
    if name == "mkdir" or version < _REMOVES_LISTS:
        raise LocalProtocolError(f"this worker's {name} takes one directory at a time")
    return list(directories)


def _as_bytes(value: Value) -> Value:
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-8", "surrogateescape")
        case Mapping():
            return {key: _as_bytes(item) for key, item in value.items()}
        case tuple():
            return tuple(map(_as_bytes, value))
        case list():
            return list(map(_as_bytes, value))
        case _:
            return value
