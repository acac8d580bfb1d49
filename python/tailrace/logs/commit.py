"""Group commit: what was appended to any run is made safe together, in threads, some dozen times a second.

One task looks after all runs. A commit takes whatever grew since the last one; the next begins when it is done, so that
no file is synced twice at once, and a slow disk makes the commits larger, not more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final

import trio

from tailrace.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Durability: TypeAlias = Literal["disk", "relaxed"]
"""When a log counts as safe. `disk`: it is synced, and outlives the machine's death. `relaxed`: the kernel has it, and
it outlives this process."""

INTERVAL_S: Final = 0.02
"""From the begin of one commit to that of the next, at least. A sync takes some milliseconds of a disk, whatever it is
for; and what a worker has to hold for so much longer is little beside what is on its way."""

BYTES: Final = 1 << 20
"""So much new is committed before the interval is over. A sync takes some milliseconds and half of one for each MiB, so
what limits a fast log is how much a worker's ring lets grow meanwhile: one half of its 8 MiB is synced while the other
is filled, whatever stands here between 1 and 3 MiB. With half of that ring it was slower by a third, with two syncs at
once no faster, as a disk flushes one after the other (measured)."""

_THREADS: Final = 8
"""File systems put syncs that wait at the same time into one write of their journal: eight at once take hardly longer
than one."""


class Committed(Protocol):
    """What grows and is made safe."""

    @property
    def end(self) -> int:
        """How far it goes now."""

    def make_safe(self) -> bool:
        """Sync its files. Called in a thread. True: its name is new among the others', which the caller syncs.

        Raises:
            StoreError, OSError: it is not safe, and cannot be.
        """

    def committed(self, end: int, error: StoreError | None) -> None:
        """Everything before `end` is safe; or nothing more will ever be, as of `error`."""


@final
class Committer:
    """Makes safe whatever grew. `run` is its one task."""

    def __init__(self, sync_names: Callable[[], None]) -> None:
        """`sync_names`: makes the names of new ones safe. Called in a thread."""
        self._sync_names = sync_names
        self._threads = trio.CapacityLimiter(_THREADS)
        self._grown: dict[Committed, None] = {}
        self._bytes = 0
        self._begun = -math.inf
        self._wanted = trio.Event()
        self._full = trio.Event()
        self._one_at_a_time = trio.Lock()

    def grew(self, what: Committed, size: int) -> None:
        """It has `size` bytes more than before, or something else to be made safe."""
        self._grown[what] = None
        self._bytes += size
        self._wanted.set()
        if self._bytes >= BYTES:
            self._full.set()

    async def run(self) -> None:
        """Commit again and again. Cancelled: a commit that has begun is finished."""
        while True:
            await self._wanted.wait()
            with trio.move_on_at(self._begun + INTERVAL_S):
                await self._full.wait()
            await self.commit()

    async def commit(self) -> None:
        """Make everything safe that grew up to now, and say so. Not cancelled before that."""
        with trio.CancelScope(shield=True):
            async with self._one_at_a_time, trio.open_nursery() as nursery:
                grown, self._grown = list(self._grown), {}
                self._bytes = 0
                self._begun = trio.current_time()
                self._wanted, self._full = trio.Event(), trio.Event()
                for number in range(min(_THREADS, len(grown))):
                    nursery.start_soon(self._commit, grown[number::_THREADS])

    async def _commit(self, share: Sequence[Committed]) -> None:
        ends = [what.end for what in share]
        errors = await trio.to_thread.run_sync(self._make_safe, share, limiter=self._threads)
        for what, end, error in zip(share, ends, errors, strict=True):
            what.committed(end, error)

    def _make_safe(self, share: Sequence[Committed]) -> list[StoreError | None]:
        """In a thread."""
        errors: list[StoreError | None] = []
        new = []
        for number, what in enumerate(share):
            error, is_new = _safe(what.make_safe)
            errors.append(error)
            if is_new:
                new.append(number)
        if new and (error := _safe(self._sync_names)[0]) is not None:
            for number in new:
                errors[number] = errors[number] or error
        return errors


def _safe(sync: Callable[[], bool | None]) -> tuple[StoreError | None, bool]:
    try:
        return None, bool(sync())
    except StoreError as error:
        return error, False
    except OSError as error:
        told = StoreError(f"cannot sync {error.filename or 'the log store'}: {error.strerror or error}")
        told.errno = error.errno
        return told, False
