"""The environment of a child: the worker's own, changed as the `env` argument says.

Rules, which are Buildbot's: None removes a variable; a list is joined with the platform's path separator; `${NAME}` is
replaced from the worker's own environment, by nothing if it is unknown, not recursively; the worker's `PYTHONPATH` is
put behind one that the master gives; `PWD` is the working directory.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .command import Arguments

_REFERENCE = re.compile(r"\$\{([0-9A-Za-z_]+)\}")

Changes = dict[str, str | list[str] | None]


def environment_changes(arguments: Arguments) -> Changes:
    """The `env` argument, checked: strings, lists of strings, None."""
    return {name: _checked(arguments, name, value) for name, value in arguments.mapping("env").items()}


def child_environment(own: Mapping[str, str], changes: Changes, workdir: Path) -> dict[str, str]:
    """The environment for a child in `workdir`."""
    environment = dict(own)
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
            continue
        text = os.pathsep.join(value) if isinstance(value, list) else value
        environment[name] = _REFERENCE.sub(lambda found: own.get(found[1], ""), text)
    if isinstance(changes.get("PYTHONPATH"), str | list) and own.get("PYTHONPATH"):
        environment["PYTHONPATH"] += os.pathsep + own["PYTHONPATH"]
    environment["PWD"] = str(workdir)
    return environment


def _checked(arguments: Arguments, name: str, value: object) -> str | list[str] | None:
    if not name or "=" in name or "\0" in name:
        raise arguments.wrong("env", f"a mapping with names of variables, which {name!r} is not")
    if value is None:
        return None
    if isinstance(value, bytes):  # an environment may hold any bytes
        value = os.fsdecode(value)
    texts = cast("list[object]", list(value) if isinstance(value, list | tuple) else [value])
    checked = [text for text in texts if isinstance(text, str) and "\0" not in text]
    if len(checked) < len(texts):
        raise arguments.wrong(
            "env", f"a mapping to strings, lists of strings and None, which the value of {name!r} is not"
        )
    return value if isinstance(value, str) else checked
