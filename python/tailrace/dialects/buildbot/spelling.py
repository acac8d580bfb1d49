"""Buildbot's names, arguments and update values, and ours.

Ours are those of Perspective Broker: `uploadFile`, `workersrc`, paths relative to the builder's directory. On msgpack
the same commands have other names (`upload_file`), absolute paths that the master makes up, and no objects in their
arguments.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs

from tailrace.dialects.buildbot.calls import Item
from tailrace.errors import LocalProtocolError, Unsupported

if TYPE_CHECKING:
    from tailrace.messages import ImplKind, Value

Args: TypeAlias = "dict[str, Value]"

# ---------------------------------------------------------------- commands

MSGPACK_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"uploadFile": "upload_file", "uploadDirectory": "upload_directory", "downloadFile": "download_file"}
)
"""Ours → msgpack's, where they differ. A worker takes both."""

_OUR_NAMES: Final = {theirs: ours for ours, theirs in MSGPACK_NAMES.items()}

BLOCK_BYTES_MAX: Final = 512 << 10
"""What is asked of a worker for one block at most. Perspective Broker has no larger strings than 640 KiB."""

REQUIRED: Final[Mapping[str, Mapping[str, Value]]] = MappingProxyType(
    {
        "uploadFile": {"workdir": ".", "maxsize": None, "blocksize": 256 << 10, "keepstamp": False},
        "uploadDirectory": {"workdir": ".", "maxsize": None, "blocksize": 256 << 10},
        "downloadFile": {"workdir": ".", "maxsize": None, "blocksize": 256 << 10, "mode": None},
        "shell": {"workdir": "."},
    }
)
"""Arguments without which Buildbot's worker fails, and what they are when nothing is said."""

IMPLS: Final[Mapping[str, Mapping[str, ImplKind]]] = MappingProxyType(
    {
        "uploadFile": {"writer": "FileWriter"},
        "uploadDirectory": {"writer": "FileWriter"},
        "downloadFile": {"reader": "FileReader"},
        "downloadDirectory": {"reader": "FileReader"},
    }
)
"""The master's objects that a command's arguments hold."""


def with_defaults(name: str, args: Mapping[str, Value]) -> Args:
    """The arguments as any of Buildbot's workers takes them."""
    complete: Args = {**REQUIRED.get(name, {}), **args}
    block = complete.get("blocksize")
    if isinstance(block, int) and block > BLOCK_BYTES_MAX:
        complete["blocksize"] = BLOCK_BYTES_MAX
    if name == "uploadDirectory":
        # A master of ours unpacks what it gets as it is.
        complete["compress"] = None
    if name == "shell" and "usePTY" in complete:
        complete["usePTY"] = bool(complete["usePTY"])
    return complete


def decoded(value: Value) -> Value:
    """With text for bytes, everywhere: arguments hold no data.

    Raises:
        UnicodeDecodeError: they are not UTF-8.
    """
    match value:
        case bytes():
            return value.decode()
        case list() | tuple():
            return [decoded(item) for item in value]
        case dict():
            return {str(decoded(key)): decoded(item) for key, item in value.items()}
        case _:
            return value


# ---------------------------------------------------------------- paths of msgpack


@final
@attrs.frozen(kw_only=True)
class Place:
    """Where a worker keeps its files, as it says itself."""

    basedir: str = ""
    system: str = "posix"
    home: str = ""

    @classmethod
    def of_info(cls, info: Mapping[str, Value]) -> Place:
        """By its worker info; all of it is optional."""
        environ = info.get("environ")
        home = environ.get("HOME", "") if isinstance(environ, Mapping) else ""
        basedir, system = info.get("basedir"), info.get("system")
        return cls(
            basedir=basedir if isinstance(basedir, str) else "",
            system=system if isinstance(system, str) else "posix",
            home=home if isinstance(home, str) else "",
        )

    def join(self, *parts: str) -> str:
        """A path below the base directory; an absolute part replaces what is before it."""
        kind = PureWindowsPath if self.system == "nt" else PurePosixPath
        return str(kind(self.basedir, *parts))

    def expanded(self, path: str) -> str:
        """With `~`, where a worker would expand it itself."""
        if self.home and (path == "~" or path.startswith(("~/", "~\\"))):
            return self.home + path[1:]
        return path


_Arg: TypeAlias = "tuple[str, str]"
# Ours → msgpack's, for arguments that are paths and nothing more.
_PATHS: Final[Mapping[str, tuple[_Arg, ...]]] = {
    "mkdir": (("dir", "paths"),),
    "rmdir": (("dir", "paths"),),
    "cpdir": (("fromdir", "from_path"), ("todir", "to_path")),
    "stat": (("file", "path"),),
    "glob": (("path", "path"),),
    "listdir": (("dir", "path"),),
    "rmfile": (("path", "path"),),
    "uploadFile": (("workersrc", "path"),),
    "uploadDirectory": (("workersrc", "path"),),
    "downloadFile": (("workerdest", "path"),),
    "downloadDirectory": (("workerdest", "path"),),
    "shell": (("workdir", "workdir"),),
}
_EXPANDED: Final = frozenset({"workersrc", "workerdest", "path"})
_WITH_WORKDIR: Final = frozenset({"uploadFile", "uploadDirectory", "downloadFile", "downloadDirectory", "stat"})


def to_msgpack(name: str, args: Mapping[str, Value], directory: str, place: Place) -> tuple[str, Args]:
    """A command as msgpack's workers take it. `directory`: the builder's."""
    wanted = with_defaults(name, args)
    workdir = wanted.get("workdir") if name in _WITH_WORKDIR else None
    base = (directory, workdir) if isinstance(workdir, str) else (directory,)
    for ours, theirs in _PATHS.get(name, ()):
        if ours not in wanted:
            continue
        value = wanted[ours] if name in _WITH_WORKDIR else wanted.pop(ours)
        wanted[theirs] = _absolute(value, ours, theirs, base, place)
    return MSGPACK_NAMES.get(name, name), wanted


def _absolute(value: Value, ours: str, theirs: str, base: Sequence[str], place: Place) -> Value:
    def absolute(path: Value) -> Value:
        if not isinstance(path, str):
            raise LocalProtocolError(f"the argument {ours!r} is a path or a list of paths, not {path!r}")
        return place.join(*base, place.expanded(path) if ours in _EXPANDED else path)

    if theirs != "paths":
        return absolute(value)
    return [absolute(path) for path in (value if isinstance(value, list | tuple) else [value])]


def from_msgpack(name: str, args: Mapping[str, Value]) -> tuple[str, Args, dict[str, ImplKind]]:
    """A command as our workers take it, and the master's objects that belong to it."""
    ours_name = _OUR_NAMES.get(name, name)
    wanted: Args = dict(args)
    for ours, theirs in _PATHS.get(ours_name, ()):
        if theirs in wanted:
            wanted[ours] = wanted.pop(theirs)
            if ours_name in _WITH_WORKDIR:
                # The path is absolute already, and the rest is what it was made of.
                wanted.pop("workdir", None)
    return ours_name, wanted, dict(IMPLS.get(ours_name, {}))


# ---------------------------------------------------------------- secrets in command lines

_EXPANSION: Final = re.compile(r"\$\{\w*\}")


def has_hidden(args: Mapping[str, Value]) -> bool:
    """Whether a word of the command line is not to be seen."""
    command = args.get("command")
    return isinstance(command, list | tuple) and any(_is_hidden(word) for word in command)


def hide(args: Mapping[str, Value], place: Place) -> Args:
    """The command line without its hidden words: they go by the environment, which is not logged, and a shell.

    For Buildbot's worker on msgpack, which runs and shows `["obfuscated", real, shown]` as text.

    Raises:
        Unsupported: it cannot be done; nothing of it was sent.
    """
    if place.system == "nt":
        raise Unsupported("msgpack", "this worker would show the obfuscated words of its command line")
    command = cast("Sequence[Value]", args["command"])
    words: list[str] = []
    hidden: dict[str, Value] = {}
    for word in command:
        if not _is_hidden(word):
            words.append(shlex.quote(str(word)))
            continue
        real = str(cast("Sequence[Value]", word)[1])
        if _EXPANSION.search(real):
            raise Unsupported("msgpack", "this worker would change an obfuscated word that holds ${…}")
        variable = f"TAILRACE_WORD_{len(hidden)}"
        hidden[variable] = real
        words.append(f'"${variable}"')
    variables = " ".join(hidden)
    # Set before they are unset: the child is not to find them in its environment.
    line = f'set -- {" ".join(words)}; unset {variables}; exec "$@"'
    env = args.get("env")
    return {
        **args,
        "command": ["/bin/sh", "-c", line],
        "env": {**(env if isinstance(env, Mapping) else {}), **hidden},
        "logEnviron": False,
    }


def _is_hidden(word: Value) -> bool:
    return isinstance(word, list | tuple) and len(word) == 3 and word[0] == "obfuscated"


# ---------------------------------------------------------------- updates


def _whole(value: Value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _seconds(value: Value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _text(value: Value) -> Value:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _revision(value: Value) -> Value:
    return "" if value is None else str(_text(value)) if isinstance(value, str | bytes) else str(_whole(value))


def _texts(value: Value) -> Value:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is no list")
    return [_text(item) for item in value]


def _downloaded(value: Value) -> Value:
    """Buildbot's `repo` joins them by spaces."""
    return cast("str", _text(value)).split() if isinstance(value, str | bytes) else _texts(value)


def _stat(value: Value) -> Value:
    if not isinstance(value, list | tuple) or len(value) != 10:
        raise ValueError("a stat has ten numbers")
    return [_whole(item) for item in value]


_CHECKS: Final[Mapping[str, Callable[[Value], Value]]] = {
    "rc": _whole,
    "elapsed": _seconds,
    "failure_reason": _text,
    "signal": _text,
    "got_revision": _revision,
    "repo_downloaded": _downloaded,
    "files": _texts,
    "stat": _stat,
}


def checked_item(key: str, value: Value) -> Item:
    """A worker's update as ours. What we do not know passes.

    Raises:
        ValueError: the value is not what this key has.
    """
    check = _CHECKS.get(key)
    if check is None:
        return Item(key, value)
    try:
        return Item(key, check(value))
    except ValueError as error:
        raise ValueError(f"{key!r}: {error}") from None
