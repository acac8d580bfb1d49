"""`tailrace put` and `tailrace get`: files and directories to a worker and back."""

from __future__ import annotations

import os
import stat
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tailrace.errors import UnsafeArchive

from .api import open_api
from .failure import TRANSFER_FAILED, USAGE, Failure, say
from .progress import progress
from .settings import Told  # noqa: TC001  (cyclopts reads the annotations)
from .show import print_json
from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

_PIECE_BYTES = 1024 * 1024


async def put(source: Path, target: str, /, *, told: Told) -> int:
    """Send a file or a directory to a worker.

    As in: `tailrace put src w1:project/src`. Missing parents are made; a file that is there is replaced when the new
    one has arrived whole. A target that ends with `/` is a directory to put it into.

    Parameters
    ----------
    source
        The file or directory here.
    target
        NAME:PATH; a relative PATH is in the worker's base directory.
    """
    worker, path = place(target)
    if not path or path.endswith("/"):
        path += (await trio.Path(source).resolve()).name
    status = await _readable(source)
    is_tree = stat.S_ISDIR(status.st_mode)
    params = {"worker": worker, "path": path, "kind": "tree" if is_tree else "file"}
    if not is_tree:
        params["mode"] = str(stat.S_IMODE(status.st_mode))
    total = None if is_tree else status.st_size
    async with (
        open_api(told) as api,
        aclosing(tree_pieces(source) if is_tree else file_pieces(source)) as pieces,
        progress(f"{source.name} → {target}", total, quiet=told.json) as moved,
    ):
        answer = await api.put(params, moved.counted(pieces))
    if (said := answer.get("error")) or answer.get("rc"):
        raise Failure(f"{target}: {said or 'the worker failed'}", "what was there is as it was", code=TRANSFER_FAILED)
    if told.json:
        print_json(answer)
    return 0


async def get(source: str, target: Path, /, *, told: Told) -> int:
    """Fetch a file or a directory from a worker.

    As in: `tailrace get w1:project/out out`. Missing parents are made; what is there is replaced when the new one has
    arrived whole. If the target is a directory already, it is put into it.

    Parameters
    ----------
    source
        NAME:PATH; a relative PATH is in the worker's base directory.
    target
        The file or directory here.
    """
    worker, path = place(source)
    if await trio.Path(target).is_dir() or os.fspath(target).endswith("/"):
        target /= Path(path).name
    params = {"worker": worker, "path": path or ".", "kind": "auto"}
    async with open_api(told) as api, api.get(params) as response:
        length = response.headers.get("x-tailrace-size")
        total = int(length) if length else None
        async with progress(f"{source} → {target.name}", total, quiet=told.json) as moved:
            pieces = moved.counted(response.aiter_raw())
            is_tree = response.headers.get("x-tailrace-kind") == "tree"
            if is_tree:
                await save_tree(pieces, target)
            else:
                mode = response.headers.get("x-tailrace-mode")
                await save_file(pieces, target, int(mode) & 0o777 if mode else None)
    if told.json:
        print_json({"bytes": moved.bytes, "kind": "tree" if is_tree else "file", "path": str(target)})
    return 0


def place(text: str) -> tuple[str, str]:
    """NAME:PATH as (name, path)."""
    name, colon, path = text.partition(":")
    if not colon or not name or "/" in name:
        raise Failure(f"{text} is no place on a worker", "it is NAME:PATH, as in w1:project/src", code=USAGE)
    return name, path


async def _readable(source: Path) -> os.stat_result:
    """What it is, if it can be sent."""
    try:
        descriptor = await trio.to_thread.run_sync(os.open, source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"{source}: {error.strerror}", "name a file or a directory that you may read") from error
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise Failure(f"{source} is neither a file nor a directory", "name one")
    return status


async def file_pieces(source: Path) -> AsyncGenerator[bytes]:
    """The bytes of a file."""
    with _local(source):
        async with await trio.open_file(source, "rb", buffering=0) as file:
            while piece := await file.read(_PIECE_BYTES):
                yield piece


async def tree_pieces(source: Path) -> AsyncGenerator[bytes]:
    """A directory as a tar stream. What cannot be sent (sockets, devices) is named at the end."""
    from tailrace.files import pack

    skipped: list[bytes] = []
    with _local(source):
        async with aclosing(pack(source, skipped=skipped)) as pieces:
            async for piece in pieces:
                yield piece
    for path in skipped:
        say(f"{source}/{printable(os.fsdecode(path))} is no file and no directory; it was left out")


async def save_file(pieces: AsyncIterator[bytes], target: Path, mode: int | None = None) -> None:
    """Writes beside the target and moves it there when it is whole. When cancelled, what was there is as it was.

    A new file gets `mode`, as far as the umask lets it; one that is replaced keeps its own.
    """
    from tailrace.files import AtomicFile
    from tailrace.files.atomic import umask

    with _local(target):
        await trio.Path(target.parent).mkdir(parents=True, exist_ok=True)
        async with AtomicFile(target) as file:
            async for piece in pieces:
                await file.write(piece)
            await file.commit(None if mode is None or await trio.Path(target).exists() else mode & ~umask())


async def save_tree(pieces: AsyncIterator[bytes], target: Path) -> None:
    """Unpacks beside the target and moves it there when it is whole. When cancelled, what was there is as it was."""
    from tailrace.files import Unpacker

    with _local(target):
        await trio.Path(target.parent).mkdir(parents=True, exist_ok=True)
        async with Unpacker(target) as tree:
            async for piece in pieces:
                await tree.write(piece)
            await tree.commit()


@contextmanager
def _local(target: Path) -> Iterator[None]:
    """What this machine has against it."""
    try:
        yield
    except OSError as error:
        raise Failure(
            f"{target}: {error.strerror or error}", "what was there is as it was", code=TRANSFER_FAILED
        ) from error
    except UnsafeArchive as error:
        raise Failure(f"{target}: {error}", "nothing was unpacked", code=TRANSFER_FAILED) from error
