"""What stands for a master's object: one method, `callRemote(message, …)`, which calls `remote_<message>` on the Impl.

A proxy has the Impl behind it. At the master that is the Impl itself, and the proxy is where the wire's messages are
handed to it: a subclass of `Connection` may put its own classes into `Connection.proxies`. At the worker it is a
stand-in that carries the call over the wire. Only the document's messages exist.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar, cast

from tailrace.errors import LocalProtocolError
from tailrace.link.impl import FileReaderImpl, FileWriterImpl, RemoteCommandImpl

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tailrace._core import Journal
    from tailrace.link.impl import BatchSink, BlockSource
    from tailrace.link.resume import CommandKey

ImplT = TypeVar("ImplT")


class RemoteProxy(Generic[ImplT]):
    """A handle on a master's object."""

    messages: ClassVar[frozenset[str]] = frozenset()
    """What can be called."""

    def __init__(self, impl: ImplT) -> None:
        self.impl = impl

    async def callRemote(self, message: str, *args: object, **kw: object) -> object:
        """Call `remote_<message>` on the master's object, and return what it returns.

        Cancelled: the call may have happened.

        Raises:
            RemoteError: the method raised, or the far side has given up this object.
            ConnectionLost: the connection broke.
            LocalProtocolError: there is no such message.
        """
        if message not in self.messages:
            known = ", ".join(sorted(self.messages))
            raise LocalProtocolError(f"{type(self).__name__} has no message {message!r}, only {known}")
        method = cast("_Method", getattr(self.impl, f"remote_{message}"))
        return await method(*args, **kw)


class _Method(Protocol):
    def __call__(self, *args: object, **kw: object) -> Awaitable[object]: ...


class JournalSource(Protocol):
    """A journal that grows until it has ended, and may forget what its master has safe."""

    @property
    def journal(self) -> Journal:
        """The records."""

    async def wait_grown(self, end: int) -> None:
        """Wait until `journal.end` > `end`, or `journal.ended`. Cancellation changes nothing."""

    def released(self, offset: int) -> None:
        """The master has everything before `offset` safe."""

    def spooling(self, on: bool) -> None:
        """The master is away, so that what comes meanwhile is better kept elsewhere; or it is back."""


class RemoteCommandProxy(RemoteProxy[RemoteCommandImpl]):
    """A handle on a command's `RemoteCommandImpl`: `update(updates)`, `complete(failure=None)`.

    `updates` is a dict with the document's keys; text may be given as `bytes`.
    """

    messages: ClassVar[frozenset[str]] = frozenset({"update", "complete"})

    def __init__(self, impl: RemoteCommandImpl, commandId: str = "", key: CommandKey | None = None) -> None:
        super().__init__(impl)
        self.commandId = commandId
        self.key = key
        """At a worker: what a later process of it must know of the command, to go on with it."""

    async def send(self, source: JournalSource) -> None:
        """At a worker, instead of `callRemote`: stream a journal, until the master has its end safe.

        Cancelled: the stream is reset, and the command is lost to the master.

        Raises:
            RemoteError: the master does not want it any more.
            ConnectionLost: the connection broke.
        """
        if not isinstance(self.impl, JournalSink):
            raise LocalProtocolError("only a worker sends a journal")
        await self.impl.send(source)


class JournalSink(RemoteCommandImpl):
    """What stands for a `RemoteCommandImpl` at the worker."""

    @abstractmethod
    async def send(self, source: JournalSource) -> None:
        """See `RemoteCommandProxy.send`."""


class FileWriterProxy(RemoteProxy[FileWriterImpl]):
    """A handle on a `FileWriterImpl`: `write(data)`, `utime((accessed, modified))`, `unpack()`, `close()`, in order.

    At a worker `write` waits for room, not for the master; `close` returns when the master has it in its place.
    """

    messages: ClassVar[frozenset[str]] = frozenset({"write", "utime", "unpack", "close"})

    takes_compressed: bool = False
    """At a worker: whether a directory goes to the master compressed, as `compress` asks for. An Impl of ours sees a
    plain tar stream; Buildbot's masters undo the compression themselves."""

    async def send(self, source: BlockSource) -> None:
        """At a worker, instead of `write`: all of a file. Waits and raises as `write`, and what the source raises."""
        if not isinstance(self.impl, FileSink):
            raise LocalProtocolError("only a worker sends a file")
        await self.impl.send(source)

    async def abort(self, reason: str) -> None:
        """At a worker: give up; the master's object is not closed. Does nothing after `close`."""
        if not isinstance(self.impl, FileSink):
            raise LocalProtocolError("only a worker gives up an upload")
        await self.impl.abort(reason)


class FileSink(FileWriterImpl):
    """What stands for a `FileWriterImpl` at the worker."""

    @abstractmethod
    async def send(self, source: BlockSource) -> None:
        """See `FileWriterProxy.send`."""

    @abstractmethod
    async def abort(self, reason: str) -> None:
        """See `FileWriterProxy.abort`."""


class FileReaderProxy(RemoteProxy[FileReaderImpl]):
    """A handle on a `FileReaderImpl`: `read(maxLength)`, `close()`.

    At a worker `b""` says that all of it has come and was verified, by length and digest.
    """

    messages: ClassVar[frozenset[str]] = frozenset({"read", "close"})

    async def receive(self, sink: BatchSink) -> None:
        """At a worker, instead of `read`: all of a file, as it comes. Returns when it was verified; raises as `read`,
        and what the sink raises."""
        if not isinstance(self.impl, FileSource):
            raise LocalProtocolError("only a worker receives a file")
        await self.impl.receive(sink)


class FileSource(FileReaderImpl):
    """What stands for a `FileReaderImpl` at the worker."""

    @abstractmethod
    async def receive(self, sink: BatchSink) -> None:
        """See `FileReaderProxy.receive`."""
