"""Builders' directories on wires whose workers make none: the master does it with commands, as Buildbot's does.

`listdir` of the base directory says what is there; `mkdir` makes what is missing. Directories that belong to no builder
are removed (`stat`, `rmdir`) if the worker says that it wants so; files, `info` and hidden names stay.
"""

from __future__ import annotations

import itertools
import logging
import ntpath
import posixpath
import stat
from typing import TYPE_CHECKING, Protocol, cast, final

import trio

from tailrace.errors import ConnectionLost, LocalProtocolError, RemoteError
from tailrace.link.impl import RemoteCommandImpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tailrace.messages import Updates, Value

log = logging.getLogger("tailrace.link")

KEPT = frozenset({"info"})
_numbers = itertools.count()


class Host(Protocol):
    """The connection whose worker it is."""

    @property
    def workerName(self) -> str: ...
    @property
    def info(self) -> Mapping[str, Value]: ...
    async def start_unbuilt(
        self, remoteCommand: RemoteCommandImpl, commandId: str, commandName: str, args: Mapping[str, object]
    ) -> None: ...


async def make_builders(host: Host, builders: Sequence[tuple[str, str]]) -> None:
    """Have the directories of these builders, and `info`. Cancelled: some may be there.

    Raises:
        RemoteError: a directory cannot be made; the text has the worker's words.
        LocalProtocolError: the worker did not say where its base directory is.
        ConnectionLost, ConnectionClosed: the connection ended.
    """
    basedir = host.info.get("basedir")
    if not isinstance(basedir, str) or not basedir:
        raise LocalProtocolError(f"{host.workerName} does not say where its base directory is")
    path = ntpath if host.info.get("system") == "nt" else posixpath
    wanted = [path.normpath(directory or ".") for _name, directory in builders]
    listed = (await _run(host, "listdir", {"dir": basedir})).updates.get("files")
    there = [str(name) for name in cast("Sequence[object]", listed)] if isinstance(listed, list | tuple) else []
    heads = {name.replace("\\", "/").split("/", 1)[0] if path is ntpath else name.split("/", 1)[0] for name in wanted}
    # A builder in the base directory itself claims all that is in it.
    if host.info.get("delete_leftover_dirs") and "." not in heads:
        leftovers = [name for name in there if name not in heads | KEPT and not name.startswith(".")]
        await _remove(host, [path.join(basedir, name) for name in leftovers])
    missing = [name for name in ("info", *wanted) if name not in there and name != "."]
    if missing:
        await _run(host, "mkdir", {"dir": [path.join(basedir, name) for name in dict.fromkeys(missing)]})


async def _remove(host: Host, paths: Sequence[str]) -> None:
    """The directories among them. What cannot be removed is no reason to be without a worker."""
    doomed = []
    for name in paths:
        numbers = (await _run(host, "stat", {"file": name}, must=False)).updates.get("stat")
        if isinstance(numbers, tuple | list) and numbers and stat.S_ISDIR(int(numbers[0])):
            doomed.append(name)
    if doomed:
        log.info("%s: removing %s, which belong to no builder", host.workerName, ", ".join(doomed))
        await _run(host, "rmdir", {"dir": doomed}, must=False)


async def _run(host: Host, name: str, args: Mapping[str, object], *, must: bool = True) -> _Answer:
    answer = _Answer()
    await host.start_unbuilt(answer, f"builders-{next(_numbers)}", name, args)
    await answer.ended.wait()
    if answer.failure is not None:
        raise answer.failure
    if must and answer.updates.get("rc") != 0:
        said = "".join(answer.text).strip() or f"rc {answer.updates.get('rc')}"
        raise RemoteError("OSError", f"{name} of the builders' directories failed: {said}")
    return answer


@final
class _Answer(RemoteCommandImpl):
    """What a short command reports."""

    def __init__(self) -> None:
        self.updates: dict[str, object] = {}
        self.text: list[str] = []
        self.failure: RemoteError | ConnectionLost | None = None
        self.ended = trio.Event()

    async def remote_update(self, updates: Updates) -> None:
        for key in updates:
            if key in {"header", "stdout", "stderr"}:
                self.text.append(str(updates[key]))
            else:
                self.updates.setdefault(key, updates[key])

    async def remote_complete(self, failure: RemoteError | ConnectionLost | None = None) -> None:
        self.failure = failure
        self.ended.set()
