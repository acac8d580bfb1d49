"""Files that pass through the master between a worker and somebody else, at the pace of the slower one."""

from __future__ import annotations

from typing import Final, final

import trio

from tailrace.errors import TailraceError
from tailrace.link import FileReaderImpl, FileWriterImpl

_PIECES_MAX: Final = 8
"""Pieces of 64 KiB to 1 MiB between the wire and who gives or takes them: enough to overlap the two, little to hold."""


class TransferAborted(TailraceError):
    """The other end of a passed-through stream has gone; the transfer cannot be whole."""


@final
class PassingReader(FileReaderImpl):
    """A file for a worker that is put in while it is read: `send` from one task, the worker reads.

    Until `end` has been called the worker waits; after `abort` its read raises, and the worker keeps what it had.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](_PIECES_MAX)
        self._rest: list[memoryview] = []  # at most one piece, begun
        self._aborted: str | None = None
        self.bytes = 0

    async def send(self, data: bytes) -> None:
        """Waits until there is room. Cancelled: nothing was sent.

        Raises:
            TransferAborted: the worker reads no more.
        """
        if not data:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._send.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransferAborted("the worker reads no more") from None
        self.bytes += len(data)

    def end(self) -> None:
        """All was sent."""
        self._send.close()

    def abort(self, reason: str) -> None:
        """It will never be whole."""
        self._aborted = reason
        self._send.close()

    def close(self) -> None:
        """The transfer is over; `send` raises from now on."""
        self._receive.close()

    async def remote_read(self, maxLength: int) -> bytes:
        """All that is there, at most so many bytes; waits for the first."""
        if not self._rest:
            try:
                self._rest.append(memoryview(await self._receive.receive()))
            except trio.EndOfChannel:
                if self._aborted is not None:
                    raise TransferAborted(self._aborted) from None
                return b""
        room = maxLength
        taken = []
        while room > 0 and (piece := self._next()) is not None:
            taken.append(piece[:room])
            if len(piece) > room:
                self._rest.append(piece[room:])
            room -= len(taken[-1])
        return b"".join(taken)

    def _next(self) -> memoryview | None:
        if self._rest:
            return self._rest.pop()
        try:
            return memoryview(self._receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return None

    async def remote_close(self) -> None:
        """The worker has what it wanted."""
        self.close()


@final
class PassingWriter(FileWriterImpl):
    """A file from a worker that is taken out while it is written: `pieces` in one task, at that task's pace."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](_PIECES_MAX)
        self.complete = False
        self.times: tuple[float, float] | None = None

    async def take(self) -> bytes | None:
        """The next piece that the worker wrote; None when there is no more: all is here if `complete`."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    def close(self) -> None:
        """Nobody writes, or nobody takes, any more."""
        self._send.close()
        self._receive.close()

    def cut(self) -> None:
        """The command is over: no more will be written."""
        self._send.close()

    async def remote_write(self, data: bytes) -> None:
        """Waits until it was taken, or nearly."""
        try:
            await self._send.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransferAborted("nobody takes the file any more") from None

    async def remote_utime(self, accessed_modified: tuple[float, float]) -> None:
        """Remembered as `times`."""
        self.times = accessed_modified

    async def remote_unpack(self) -> None:
        """A tree passes through as the tar stream that it is."""

    async def remote_close(self) -> None:
        """The file is whole."""
        self.complete = True
        self._send.close()
