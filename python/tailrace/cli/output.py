"""Our own standard output and standard error as byte streams that never stall the event loop."""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING, final

import trio

from .streams import write_at_once

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PIPE_BUF = select.PIPE_BUF
"""A pipe that polls as writable takes this much without blocking."""


@final
class Output:
    """File descriptor 1 or 2: bytes go out in order and unchanged. One writer at a time.

    The descriptor is shared with whoever started us, so it is never made non-blocking; what could block is written in
    a thread instead.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._never_blocks = stat.S_ISREG(os.fstat(fd).st_mode)
        self.is_terminal = os.isatty(fd)

    async def write(self, data: Buffer) -> None:
        """Everything, however slow the reader is.

        When cancelled, some of it may have been written, and a piece that is stuck may still be written later.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        rest = memoryview(data)
        while rest:
            if self._takes_at_once(len(rest)):
                await trio.lowlevel.checkpoint()
                written = os.write(self._fd, rest)
            else:
                written = await trio.to_thread.run_sync(os.write, self._fd, rest, abandon_on_cancel=True)
            rest = rest[written:]

    def write_nowait(self, data: bytes) -> None:
        """A few bytes, if they can be written at once; else they are dropped."""
        write_at_once(self._fd, data)

    def _takes_at_once(self, size: int) -> bool:
        if self._never_blocks:
            return True
        if size > _PIPE_BUF:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))
