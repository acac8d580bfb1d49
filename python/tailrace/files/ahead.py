"""The disk at work while more is written, so that the sync at the end is short."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable

SYNC_BYTES = 8 * 1024 * 1024
"""After so much the disk is set to work, while more arrives."""


@final
class SyncAhead:
    """Syncs now and then, in a thread of its own, what was written. Used by one thread at a time; none of it waits but
    `stop` and `finish`."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._dirty = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def wrote(self, count: int) -> None:
        """So much more was written, or is about to be."""
        self._dirty += count
        if self._dirty >= SYNC_BYTES and not (self._thread and self._thread.is_alive()):
            self._dirty = 0
            self._thread = threading.Thread(target=self._run, name="sync ahead")
            self._thread.start()

    def stop(self) -> None:
        """Waits until nothing is being synced."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """The same, and raises what went wrong: the system says it only once, not to the sync at the end."""
        self.stop()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._sync()
        except OSError as error:
            self._error = error
