"""The file system commands: `mkdir`, `rmdir`, `cpdir`, `stat`, `glob`, `listdir`, `rmfile`.

None of them runs on the event loop. `rmdir` and `cpdir`, which can take long, are children under a supervisor; the
others are threads, which an interrupt leaves behind: the command ends at once, the thread when its system call returns.
An error is `rc` = errno and one line on `header`.
"""

from __future__ import annotations

import errno
import glob
import os
import threading
from typing import TYPE_CHECKING, TypeVar, final

import trio

from tailrace.worker.supervisor import Child

from .child import Shown, announcement, make_directory, outcome, refuse
from .command import Outcome
from .environment import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tailrace.worker.journal import MemoryOutput
    from tailrace.worker.supervisor import Exit, Supervised

    from .command import Arguments, Context

T = TypeVar("T")

NAMES_BYTES_MAX = 8 * 1024 * 1024
"""How long the names in one `files` update may be together. A record may be twice that, and a master has to hold it."""

TREE_TIMEOUT_S = 120.0
"""Buildbot's default for how long `rm` and `cp` may be silent."""

_THREADS = trio.CapacityLimiter(64)
"""Apart from the default limiter: threads that hang on a dead file server must not stop the transfers."""


@final
class MakeDirectory:
    """`mkdir`: makes `dir` (one or several) with parents. One that is there is fine; stops at the first error."""

    def __init__(self, context: Context) -> None:
        self._paths = _paths(context, "dir")

    async def run(self, _out: MemoryOutput, /) -> Outcome:
        for path in self._paths:
            await make_directory(path)
        return Outcome(rc=0)


@final
class RemoveDirectory:
    """`rmdir`: removes `dir` (one or several) and all that is in them; what is not there is fine.

    What cannot be removed is made writable and tried once more. All are tried; `rc` is that of the last that failed.
    Arguments: `dir`, `timeout` (120 s without output), `maxTime`, `logEnviron`.
    """

    def __init__(self, context: Context) -> None:
        self._paths = _paths(context, "dir")
        self._tree = _Tree(context)

    async def run(self, out: Supervised, /) -> Outcome:
        result = Outcome(rc=0)
        for path in self._paths:
            ended = await self._remove(out, path)
            if ended.rc != 0:
                result = outcome(ended)
            if ended.reason is not None:
                break
        return result

    async def _remove(self, out: Supervised, path: Path) -> Exit:
        ended = await self._tree.spawn(out, "rm", "-rf", "--", str(path))
        if ended.rc > 0 and ended.reason is None:
            await self._tree.spawn(out, "chmod", "-Rf", "u+rwx", "--", str(path))
            ended = await self._tree.spawn(out, "rm", "-rf", "--", str(path))
        return ended


@final
class CopyDirectory:
    """`cpdir`: copies `fromdir` to `todir`, whose parents are made, keeping times, modes and links.

    Arguments: `fromdir`, `todir`, `timeout` (120 s without output), `maxTime`, `logEnviron`.
    """

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        self._source = _path(context, arguments, "fromdir")
        self._target = _path(context, arguments, "todir")
        self._tree = _Tree(context)

    async def run(self, out: Supervised, /) -> Outcome:
        try:
            await make_directory(self._target.parent)
        except OSError as error:
            return await refuse(out, f"cannot make {self._target.parent}", error)
        if await _in_thread(self._target.exists):
            await out.append(
                "header", f"{self._target} is there already: the copy goes into it\n".encode(errors="replace")
            )
        # It names what it copies: `timeout` bounds its silence, and a large tree takes long.
        options = ("-R", "-P", "-p", "-v", "--")
        return outcome(await self._tree.spawn(out, "cp", *options, str(self._source), str(self._target)))


@final
class Stat:
    """`stat`: the ten numbers of `file` (in `workdir`, if that is given), links followed, as `stat`."""

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        self._path = context.path(arguments.text("workdir", "."), arguments.text("file"))

    async def run(self, out: MemoryOutput, /) -> Outcome:
        found = await _in_thread(lambda: os.stat(self._path))
        await out.update({"stat": tuple(_signed(int(number)) for number in found[:10])})
        return Outcome(rc=0)


@final
class Glob:
    """`glob`: the absolute paths that match `path`, sorted, as `files`; `**` matches any number of directories."""

    def __init__(self, context: Context) -> None:
        self._pattern = str(_path(context, context.arguments, "path"))

    async def run(self, out: MemoryOutput, /) -> Outcome:
        stopped = threading.Event()
        try:
            names = await _in_thread(lambda: self._matches(stopped))
        finally:
            stopped.set()
        return await _tell_names(out, names)

    def _matches(self, stopped: threading.Event) -> list[str]:
        """In a thread. What nobody waits for any more ends at the next match."""
        matches = []
        for name in glob.iglob(self._pattern, recursive=True):
            if stopped.is_set():
                break
            matches.append(name)
        return sorted(matches)


@final
class ListDirectory:
    """`listdir`: the names in `dir`, sorted, as `files`."""

    def __init__(self, context: Context) -> None:
        self._path = _path(context, context.arguments, "dir")

    async def run(self, out: MemoryOutput, /) -> Outcome:
        return await _tell_names(out, await _in_thread(lambda: sorted(os.listdir(self._path))))


@final
class RemoveFile:
    """`rmfile`: removes the file `path`; `~` stands for the worker's home."""

    def __init__(self, context: Context) -> None:
        path = context.arguments.text("path")
        self._path = context.path(os.path.expanduser(path))

    async def run(self, _out: MemoryOutput, /) -> Outcome:
        await _in_thread(self._path.unlink)
        return Outcome(rc=0)


@final
class _Tree:
    """How `rmdir` and `cpdir` run their children."""

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        self._workdir = context.builder_dir
        self._environment = child_environment(context.environ, {}, self._workdir)
        self._timeout_s = arguments.seconds("timeout", TREE_TIMEOUT_S) or None
        self._max_time_s = arguments.seconds("maxTime") or None
        self._log_environ = arguments.flag("logEnviron", False)

    async def spawn(self, out: Supervised, *argv: str) -> Exit:
        child = Child(
            argv=list(argv),
            cwd=str(self._workdir),
            env=self._environment,
            timeout_s=self._timeout_s,
            max_time_s=self._max_time_s,
        )
        shown = Shown(line=" ".join(argv), argv=argv, environment=self._log_environ)
        await out.append("header", announcement(child, shown).encode(errors="replace"))
        return await out.spawn(child)


async def _in_thread(work: Callable[[], T]) -> T:
    """Runs it in a thread. Cancelled, it returns at once; the thread goes on to its end, and its result is dropped."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_THREADS)


async def _tell_names(out: MemoryOutput, names: list[str]) -> Outcome:
    texts = [os.fsencode(name).decode(errors="replace") for name in names]
    size = sum(len(text) + 5 for text in texts)
    if size > NAMES_BYTES_MAX:
        await out.append("header", f"{len(names)} names of {size} bytes are too many for one answer\n".encode())
        return Outcome(rc=errno.E2BIG)
    await out.update({"files": texts})
    return Outcome(rc=0)


def _paths(context: Context, name: str) -> list[Path]:
    texts = context.arguments.texts(name)
    if not texts or not all(texts):
        raise context.arguments.wrong(name, "one or more paths, none of them empty")
    return [context.path(text) for text in texts]


def _path(context: Context, arguments: Arguments, name: str) -> Path:
    text = arguments.text(name)
    if not text:
        raise arguments.wrong(name, "a path that is not empty")
    return context.path(text)


def _signed(number: int) -> int:
    """As the wire's integers: some file systems give inode numbers of 64 bits without sign."""
    return number if number < 1 << 63 else number - (1 << 64)
