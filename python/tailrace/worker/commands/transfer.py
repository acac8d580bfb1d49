"""The transfers: `uploadFile` and `uploadDirectory` to the master, `downloadFile` and `downloadDirectory` from it.

Files are read, written and hashed in threads, in pieces of a megabyte; the Proxies keep many pieces in flight. What
arrives is put in its place only when it is complete and its digest agrees: a transfer that fails or is interrupted
leaves the old file as it was, on either side. Then `rc` is 1, and one line on `stderr` says why.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Literal, Protocol, cast, final

import trio

from tailrace.errors import ConnectionClosed, ConnectionLost, LimitExceeded, RemoteError, TailraceError
from tailrace.files import AtomicFile, FileBlocks, Unpacker, pack
from tailrace.link import FileReaderProxy, FileWriterProxy

from .child import error_text, make_directory
from .command import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tailrace._core import Batch, Blake3, Block
    from tailrace.link import BatchSink, BlockSource
    from tailrace.worker.journal import MemoryOutput

    from .command import Arguments, Context

SKIPPED_SHOWN_MAX = 20
"""How many sockets, pipes and devices of a tree are named on `header`."""

GOODBYE_S = 5.0
"""How long an interrupted transfer may take to tell the master so."""


class Remote(Protocol):
    """What a transfer needs of a Proxy of `link`."""

    async def callRemote(self, message: str, /, *args: object) -> object: ...


class Reader(Remote, Protocol):
    """A Proxy for what the master reads."""

    async def receive(self, sink: BatchSink, /) -> None: ...


class Writer(Remote, Protocol):
    """A Proxy for what the master writes. `close` comes last, and returns when all is in its place there."""

    takes_compressed: bool

    async def send(self, source: BlockSource, /) -> None: ...

    async def abort(self, reason: str, /) -> None: ...


@final
class UploadFile:
    """`uploadFile`: sends the file `workersrc` (in `workdir`) to `writer`.

    Arguments: `workersrc` (or `slavesrc`), `workdir` ("."), `writer`, `maxsize` (bytes; a larger file fails),
    `keepstamp` (send the file's times), `blocksize` (the wires that need one look at it; ours does not).
    """

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        self._path = _worker_path(context, arguments.either("workersrc", "slavesrc"))
        self._writer = _writer(arguments)
        self._budget = _Budget(arguments)
        self._keepstamp = arguments.flag("keepstamp", False)

    async def run(self, out: MemoryOutput, /) -> Outcome:
        return await _ended(out, f"cannot upload {self._path}", self._send, self._writer.abort)

    async def _send(self) -> None:
        descriptor, found = await _opened(self._path)
        blocks = FileBlocks(descriptor)
        try:
            self._budget.check(found.st_size)
            await self._writer.send(_SpendingSource(blocks, self._budget))
            if self._keepstamp:
                await self._writer.callRemote("utime", (found.st_atime, found.st_mtime))
            await self._writer.callRemote("close")
        finally:
            blocks.close()


@final
class UploadDirectory:
    """`uploadDirectory`: sends the tree `workersrc` (in `workdir`) to `writer`, as a tar stream made on the way.

    Arguments: as `uploadFile` without `keepstamp`; `maxsize` bounds the stream; `compress` is None, `gz` or `bz2`, and
    counts where the master's side is one that undoes it.
    """

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        self._path = _worker_path(context, arguments.either("workersrc", "slavesrc"))
        self._writer = _writer(arguments)
        self._budget = _Budget(arguments)
        compress = _compression(arguments)
        self._compress = compress if self._writer.takes_compressed else None

    async def run(self, out: MemoryOutput, /) -> Outcome:
        skipped: list[bytes] = []
        outcome = await _ended(out, f"cannot upload {self._path}", lambda: self._send(skipped), self._writer.abort)
        for path in skipped[:SKIPPED_SHOWN_MAX]:
            await out.append("header", b"skipped, as it is no file: " + path + b"\n")
        if len(skipped) > SKIPPED_SHOWN_MAX:
            await out.append("header", f"{len(skipped)} were skipped in all\n".encode())
        return outcome

    async def _send(self, skipped: list[bytes]) -> None:
        async with aclosing(pack(self._path, self._compress, skipped)) as pieces:
            async for piece in pieces:
                self._budget.spend(len(piece))
                await self._writer.callRemote("write", piece)
        await self._writer.callRemote("unpack")
        await self._writer.callRemote("close")


@final
class DownloadFile:
    """`downloadFile`: takes the file `workerdest` (in `workdir`), whose parents are made, from `reader`.

    Arguments: `workerdest` (or `slavedest`), `workdir` ("."), `reader`, `maxsize` (bytes; a larger file fails), `mode`
    (permission bits), `blocksize` (as for `uploadFile`).
    """

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        self._path = _worker_path(context, arguments.either("workerdest", "slavedest"))
        self._reader = _reader(arguments)
        self._budget = _Budget(arguments)
        self._mode = arguments.count("mode")

    async def run(self, out: MemoryOutput, /) -> Outcome:
        return await _ended(out, f"cannot download {self._path}", self._receive, self._give_up)

    async def _receive(self) -> None:
        await make_directory(self._path.parent)
        async with AtomicFile(self._path) as target:
            await self._reader.receive(_SpendingSink(target, self._budget))
            await target.commit(mode=self._mode)
        await self._reader.callRemote("close")

    async def _give_up(self, _reason: str) -> None:
        await self._reader.callRemote("close")


@final
class DownloadDirectory:
    """`downloadDirectory`: takes the tree `workerdest` (in `workdir`), whose parents are made, from a tar stream.

    Arguments: `workerdest`, `workdir` ("."), `reader`, `maxsize` (bytes of the stream). Not one of Buildbot's commands.
    """

    def __init__(self, context: Context) -> None:
        arguments = context.arguments
        self._path = _worker_path(context, "workerdest")
        self._reader = _reader(arguments)
        self._budget = _Budget(arguments)

    async def run(self, out: MemoryOutput, /) -> Outcome:
        return await _ended(out, f"cannot download {self._path}", self._receive, self._give_up)

    async def _receive(self) -> None:
        await make_directory(self._path.parent)
        async with Unpacker(self._path) as target:
            await self._reader.receive(_SpendingSink(target, self._budget))
            await target.commit()
        await self._reader.callRemote("close")

    async def _give_up(self, _reason: str) -> None:
        await self._reader.callRemote("close")


async def _ended(
    out: MemoryOutput, what: str, work: Callable[[], Awaitable[None]], give_up: Callable[[str], Awaitable[None]]
) -> Outcome:
    """Does the work of a transfer. Where that fails or is cancelled, the master is told, and drops what it has."""
    try:
        await work()
    except trio.Cancelled:
        await _goodbye(give_up, "interrupted")
        raise
    except OSError as error:
        reason = error_text(error)
    except (ConnectionLost, ConnectionClosed):
        raise
    except TailraceError as error:
        reason = error.text if isinstance(error, RemoteError) else str(error)
    else:
        return Outcome(rc=0)
    await _goodbye(give_up, reason)
    await out.append("stderr", f"{what}: {reason}\n".encode(errors="replace"))
    return Outcome(rc=1)


async def _goodbye(give_up: Callable[[str], Awaitable[None]], reason: str) -> None:
    with trio.move_on_after(GOODBYE_S, shield=True), suppress(TailraceError):
        await give_up(reason)


@final
class _Budget:
    """How many bytes a transfer may still move."""

    def __init__(self, arguments: Arguments) -> None:
        self._max = arguments.count("maxsize")
        self._spent = 0

    def check(self, size: int) -> None:
        """Raises `LimitExceeded` when so many bytes more would be too many."""
        if self._max is not None and self._spent + size > self._max:
            raise LimitExceeded(f"larger than maxsize, {self._max} bytes")

    def spend(self, size: int) -> None:
        self.check(size)
        self._spent += size


@final
class _SpendingSource:
    """A file to be sent, as far as the budget goes."""

    def __init__(self, blocks: FileBlocks, budget: _Budget) -> None:
        self._blocks = blocks
        self._budget = budget

    async def read_block(self, digest: Blake3) -> Block | None:
        block = await self._blocks.read_block(digest)
        if block is not None:
            self._budget.spend(block.size)
        return block


@final
class _SpendingSink:
    """A file or a tree that comes, as far as the budget goes."""

    def __init__(self, target: BatchSink, budget: _Budget) -> None:
        self._target = target
        self._budget = budget

    async def write_batch(self, batch: Batch, digest: Blake3) -> None:
        self._budget.spend(batch.chunk_size)
        await self._target.write_batch(batch, digest)

    async def written(self) -> None:
        await self._target.written()


async def _opened(path: Path) -> tuple[int, os.stat_result]:
    """A descriptor. Cancelled while the open hangs (a pipe without a writer), its thread is left behind."""
    abandoned = threading.Event()
    try:
        return await trio.to_thread.run_sync(_open_to_read, path, abandoned, abandon_on_cancel=True)
    except trio.Cancelled:
        abandoned.set()
        raise


def _open_to_read(path: Path, abandoned: threading.Event) -> tuple[int, os.stat_result]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if abandoned.is_set():
            raise InterruptedError(errno.EINTR, "nobody waits for this file any more", str(path))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, found


def _worker_path(context: Context, name: str) -> Path:
    arguments = context.arguments
    text = arguments.text(name)
    if not text:
        raise arguments.wrong(name, "a path that is not empty")
    return context.path(arguments.text("workdir", "."), os.path.expanduser(text))


def _reader(arguments: Arguments) -> Reader:
    value = arguments.raw("reader")
    if isinstance(value, FileWriterProxy) or not callable(getattr(value, "callRemote", None)):
        raise arguments.wrong("reader", "a FileReaderImpl of the master")
    return cast(Reader, value)


def _writer(arguments: Arguments) -> Writer:
    value = arguments.raw("writer")
    if isinstance(value, FileReaderProxy) or not callable(getattr(value, "callRemote", None)):
        raise arguments.wrong("writer", "a FileWriterImpl of the master")
    return cast(Writer, value)


def _compression(arguments: Arguments) -> Literal["gz", "bz2"] | None:
    match arguments.optional_text("compress"):
        case None:
            return None
        case "gz":
            return "gz"
        case "bz2":
            return "bz2"
        case _:
            raise arguments.wrong("compress", "None, 'gz' or 'bz2'")
