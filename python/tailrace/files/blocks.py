"""A file on its way out: read and hashed in a thread, some blocks ahead of what is sent."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from tailrace._core import Block, BlockReader

if TYPE_CHECKING:
    from outcome import Outcome

    from tailrace._core import Blake3

AHEAD_BLOCKS = 4
"""So many are read before they are asked for, half of them by one start of a thread: that costs as much as a read."""


@final
class FileBlocks:
    """The blocks of an open file, whose descriptor is closed with it.

    While a block is sent, the next ones are read. A read that nobody waits for any more (of a pipe without a writer)
    leaves its thread behind, which then closes the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reader = BlockReader()
        self._busy = threading.Lock()
        self._closing = False
        self._ready: deque[Block | BaseException | None] = deque()
        self._arrived = trio.Event()
        self._reading = self._exhausted = self._ended = False

    async def read_block(self, digest: Blake3) -> Block | None:
        """The next block; `None` at the end. The digest, always the same one, has gone over it, and may be some ahead.

        Cancellation changes nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self._ready:
            if self._ended or self._closing:
                return None
            if not self._reading:
                await trio.to_thread.current_default_thread_limiter().acquire_on_behalf_of(self)
                self._begin(digest)
            # Made before it is looked: what arrives after the look finds it.
            self._arrived = trio.Event()
            if not self._ready:
                await self._arrived.wait()
        found = self._ready.popleft()
        if isinstance(found, BaseException):
            raise found
        self._ended = found is None
        self._go_on(digest)
        return found

    def close(self) -> None:
        """Closes the file, or lets the thread that still reads do that. May be called again."""
        self._closing = True
        self._close_if_idle()

    def _go_on(self, digest: Blake3) -> None:
        """Has a thread read if there is little ahead, and a thread for it."""
        may = not (self._reading or self._exhausted or self._closing)
        if may and len(self._ready) <= AHEAD_BLOCKS // 2:
            with suppress(trio.WouldBlock):
                trio.to_thread.current_default_thread_limiter().acquire_on_behalf_of_nowait(self)
                self._begin(digest)

    def _begin(self, digest: Blake3) -> None:
        """Has a thread read. One of the limiter's tokens is ours."""
        limiter = trio.to_thread.current_default_thread_limiter()
        self._reading, self._exhausted = True, False
        token = trio.lowlevel.current_trio_token()

        def rest() -> None:
            limiter.release_on_behalf_of(self)
            self._reading = False
            self._arrived.set()
            self._go_on(digest)

        def deliver(_: Outcome[None]) -> None:
            # Nobody waits for it when trio has ended.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(rest)

        trio.lowlevel.start_thread_soon(lambda: self._read(digest, token), deliver, "read ahead")

    def _read(self, digest: Blake3, token: trio.lowlevel.TrioToken) -> None:
        while not self._exhausted and len(self._ready) < AHEAD_BLOCKS:
            with self._busy:
                if self._closing:
                    break
                found = self._read_one(digest)
            self._exhausted = not isinstance(found, Block)
            self._ready.append(found)
            if not self._arrived.is_set():
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._arrived.set)
        if self._closing:
            self._close_if_idle()

    def _read_one(self, digest: Blake3) -> Block | BaseException | None:
        try:
            return self._reader.read(self._descriptor, digest)
        except BaseException as error:
            return error

    def _close_if_idle(self) -> None:
        if self._busy.acquire(blocking=False):
            try:
                if self._descriptor >= 0:
                    os.close(self._descriptor)
                    self._descriptor = -1
            finally:
                self._busy.release()
