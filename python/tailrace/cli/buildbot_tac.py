"""What a Buildbot worker's `buildbot.tac` says of its master: read, never executed.

The file is a Python program, written by `buildbot-worker create-worker`. Only assignments of literals to names count;
a file that computes what is asked for here is refused.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

import attrs

from .failure import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_INSTEAD: Final = "give --master, --name and --secret-file instead"
_WIRES: Final = {"pb": "pb", "null": None, "msgpack_experimental_v7": "msgpack"}
_TWISTED_ENDPOINT: Final = re.compile(
    r"(?P<kind>tcp|tls|ssl):(?:host=)?(?P<host>[^:=]+):(?:port=)?(?P<port>\d+)(?::.*)?"
)


@attrs.frozen(kw_only=True)
class BuildbotTac:
    """The worker that such a file describes."""

    master: str
    name: str
    password: str = attrs.field(repr=False)
    delete_leftover_dirs: bool


def read_buildbot_tac(path: Path) -> BuildbotTac:
    """Read it.

    Raises:
        Failure: it cannot be read, or does not say it in so many words.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", "name the buildbot.tac of a worker") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Failure(f"{path} is not a Python file: {error}", _INSTEAD) from error
    literals = _literals(tree)
    return BuildbotTac(
        master=_master(path, literals),
        # Before 0.9 a worker was called otherwise.
        name=_text(path, literals, "workername", "slavename"),
        password=_text(path, literals, "passwd"),
        delete_leftover_dirs=bool(literals.get("delete_leftover_dirs")),
    )


def _literals(tree: ast.Module) -> dict[str, object]:
    """The names that are assigned to once, at the top, with a literal."""
    found: dict[str, object] = {}
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = ast.literal_eval(statement.value)
                except (ValueError, TypeError, MemoryError, RecursionError):
                    found.pop(target.id, None)
    return found


def _master(path: Path, literals: Mapping[str, object]) -> str:
    protocol = literals.get("protocol", "pb")
    wire = _WIRES.get(protocol) if isinstance(protocol, str) else None
    if wire is None:
        raise Failure(f"{path}: Tailrace does not speak the protocol {protocol!r}", _INSTEAD)
    if literals.get("proxy_connection_string"):
        raise Failure(f"{path} names a proxy, which Tailrace does not use", _INSTEAD)
    connection = literals.get("connection_string")
    if connection:
        host, port, tls = _twisted(path, connection)
    else:
        host = _text(path, literals, "buildmaster_host")
        port, tls = _port(path, literals), bool(literals.get("use_tls"))
    return f"{wire}{'+tls' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _twisted(path: Path, connection: object) -> tuple[str, int, bool]:
    """Host, port and whether it is TLS, of a string such as `tls:build.example:9989`."""
    found = _TWISTED_ENDPOINT.fullmatch(connection) if isinstance(connection, str) else None
    if found is None:
        raise Failure(f"{path}: the connection_string {connection!r} is not of the kind tcp:HOST:PORT", _INSTEAD)
    return found["host"], int(found["port"]), found["kind"] != "tcp"


def _text(path: Path, literals: Mapping[str, object], *names: str) -> str:
    for name in names:
        value = literals.get(name)
        if isinstance(value, str) and value:
            return value
    raise Failure(f"{path} has no line `{names[0]} = '…'`, or computes it", _INSTEAD)


def _port(path: Path, literals: Mapping[str, object]) -> int:
    port = literals.get("port")
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
        return port
    raise Failure(f"{path} has no line `port = NUMBER`, or computes it", _INSTEAD)
