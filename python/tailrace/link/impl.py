"""What a master implements. The worker's calls arrive here, in order, one at a time for each object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from tailrace._core import Batch, Blake3, Block
    from tailrace.errors import ConnectionLost, RemoteError
    from tailrace.messages import Updates


class RemoteCommandImpl(ABC):
    """One running command, as its master sees it.

    Example::

        class Printer(RemoteCommandImpl):
            async def remote_update(self, updates):
                for record in updates.records:
                    sys.stdout.buffer.write(record)

            async def remote_complete(self, failure=None):
                self.done.set()
    """

    durable_on_return: ClassVar[bool] = True
    """Returning from `remote_update` says that the bytes are safe. A class that needs longer says `False`, and calls
    `Connection.durable(commandId, offset)` when it has them safe."""

    @abstractmethod
    async def remote_update(self, updates: Updates) -> None:
        """All that has arrived since the last call, up to `Limits.update_bytes_max`. Returning gives credit back."""

    @abstractmethod
    async def remote_complete(self, failure: RemoteError | ConnectionLost | None = None) -> None:
        """The command is over. Called exactly once, after the last `remote_update`, also when the connection
        is lost."""


class FileWriterImpl(ABC):
    """Takes what a worker uploads: a file's bytes, or a directory as a POSIX tar stream.

    The order is write…, [utime], [unpack], close. A transfer that fails is not closed: put nothing in its place before
    `remote_close`, and clean up in your command's `remote_complete`.
    """

    @abstractmethod
    async def remote_write(self, data: bytes) -> None:
        """The next bytes, up to 1 MiB. Returning gives credit back. Cancelled when the transfer fails meanwhile."""

    @abstractmethod
    async def remote_utime(self, accessed_modified: tuple[float, float]) -> None:
        """Access and modification time of the file, Unix seconds."""

    @abstractmethod
    async def remote_unpack(self) -> None:
        """The tar stream is complete: unpack it."""

    @abstractmethod
    async def remote_close(self) -> None:
        """Everything is here; length and digest were verified. Returning tells the worker that it is in its place."""


class BatchSink(Protocol):
    """Where a file goes that comes, as it comes: without a copy, and hashed where it is written."""

    @abstractmethod
    async def write_batch(self, batch: Batch, digest: Blake3) -> None:
        """The batch's chunks, over which the digest is to go, too. It may be some batches behind with both."""

    @abstractmethod
    async def written(self) -> None:
        """All of them were written, and the digest has gone over them."""


class BatchWriterImpl(FileWriterImpl, BatchSink):
    """One of ours: `write_batch` is called in place of `remote_write`."""


class FileReaderImpl(ABC):
    """Gives what a worker downloads."""

    @abstractmethod
    async def remote_read(self, maxLength: int) -> bytes:
        """The next bytes, at most `maxLength`; `b""` at the end. The master reads ahead, up to credit."""

    @abstractmethod
    async def remote_close(self) -> None:
        """The worker is done with it. Not called after a failure."""


class BlockSource(Protocol):
    """A file to be sent, as blocks that can be sent as they are, hashed where they were read."""

    @abstractmethod
    async def read_block(self, digest: Blake3) -> Block | None:
        """The next block, over which the digest went, too. It may be one ahead. `None` at the end."""


class BlockReaderImpl(FileReaderImpl, BlockSource):
    """One of ours: `read_block` is called in place of `remote_read`."""
