"""A file on its way out: read and hashed in threads, block by block, one ahead of what is sent."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from tailrace._core import BlockReader

if TYPE_CHECKING:
    from outcome import Outcome

    from tailrace._core import Blake3, Block


@final
class FileBlocks:
    """The blocks of an open file, whose descriptor is closed with it.

    While a block is sent, the next one is read. A read that nobody waits for any more (of a pipe without a writer)
    leaves its thread behind, which then closes the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reader = BlockReader()
        self._busy = threading.Lock()
        self._closing = False
        self._arrived = trio.Event()
        self._begun = self._ended = False
        self._next: Outcome[Block | None] | None = None

    async def read_block(self, digest: Blake3) -> Block | None:
        """The next block; `None` at the end. The digest, always the same one, has gone over it, and may be one ahead.

        Cancellation changes nothing.
        """
        if self._ended:
            return None
        if not self._begun:
            await trio.to_thread.current_default_thread_limiter().acquire_on_behalf_of(self)
            self._begin(digest)
        await self._arrived.wait()
        assert self._next is not None
        self._begun = False
        block = self._next.unwrap()
        self._ended = block is None
        if not self._ended:
            with suppress(trio.WouldBlock):
                trio.to_thread.current_default_thread_limiter().acquire_on_behalf_of_nowait(self)
                self._begin(digest)
        return block

    def close(self) -> None:
        """Closes the file, or lets the thread that still reads do that. May be called again."""
        self._closing = True
        self._close_if_idle()

    def _begin(self, digest: Blake3) -> None:
        """Has a thread read. One of the limiter's tokens is ours."""
        limiter = trio.to_thread.current_default_thread_limiter()
        self._begun, self._arrived = True, trio.Event()
        token = trio.lowlevel.current_trio_token()

        def arrive(outcome: Outcome[Block | None]) -> None:
            limiter.release_on_behalf_of(self)
            self._next = outcome
            self._arrived.set()

        def deliver(outcome: Outcome[Block | None]) -> None:
            # Nobody waits for it when trio has ended.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(arrive, outcome)

        trio.lowlevel.start_thread_soon(lambda: self._read(digest), deliver, "read ahead")

    def _read(self, digest: Blake3) -> Block | None:
        with self._busy:
            block = None if self._closing else self._reader.read(self._descriptor, digest)
        if self._closing:
            self._close_if_idle()
        return block

    def _close_if_idle(self) -> None:
        if self._busy.acquire(blocking=False):
            try:
                if self._descriptor >= 0:
                    os.close(self._descriptor)
                    self._descriptor = -1
            finally:
                self._busy.release()
