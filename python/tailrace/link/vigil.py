"""One task that looks after all connections of a process, each at the time that it asks for.

A task for each connection would cost a quiet one a fifth of its memory, and sleeps most of the time.
"""

from __future__ import annotations

import heapq
import logging
import math
from itertools import count
from typing import Protocol, final

import trio
from trio.lowlevel import RunVar

from tailrace.link.bell import Bell
from tailrace.link.here import here

log = logging.getLogger("tailrace.link")

LOOKS_EVERY_S = 0.1
"""From one look to the next, at least: of thousands some are always due, and to wake for each by itself is most of what
it costs. What is due in seconds may wait for so long."""


class Watched(Protocol):
    """What is looked after."""

    def look(self) -> float | None:
        """It is time, and whatever had come by then was read. When to look again; `None`: never."""


@final
class Watch:
    """What `watch` returns."""

    __slots__ = ("vigil", "what")

    def __init__(self, vigil: Vigil, what: Watched) -> None:
        self.vigil = vigil
        self.what: Watched | None = what

    def end(self) -> None:
        """Do not look any more."""
        if self.what is not None:
            self.what = None
            self.vigil.ended()


def watch(what: Watched, when: float) -> Watch:
    """Look after it from now on, at `when` for the first time."""
    return here(_vigils, Vigil).watch(what, when)


@final
class Vigil:
    """All that is watched in one run of trio."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Watch]] = []
        self._numbers = count()
        self._watched = 0
        self._runs = False
        self._rests_until = -math.inf
        self._changed = Bell()

    def watch(self, what: Watched, when: float) -> Watch:
        found = Watch(self, what)
        self._watched += 1
        self._again(found, when)
        if not self._runs:
            self._runs = True
            trio.lowlevel.spawn_system_task(self._run)
        return found

    def ended(self) -> None:
        self._watched -= 1
        if not self._watched:
            self._due.clear()
            self._changed.ring()

    async def _run(self) -> None:
        """As long as anything is watched."""
        try:
            while self._due:
                with trio.move_on_at(max(self._due[0][0], self._rests_until)):
                    await self._changed.wait()
                # Whoever reads has its turn before anybody is judged: a process that was stopped for a minute must not
                # bury a peer whose bytes are waiting in the kernel.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                self._look(trio.current_time())
        finally:
            self._runs = False

    def _look(self, now: float) -> None:
        if self._due and self._due[0][0] <= now:
            self._rests_until = now + LOOKS_EVERY_S
        while self._due and self._due[0][0] <= now:
            _, _, found = heapq.heappop(self._due)
            if found.what is None:
                continue
            try:
                when = found.what.look()
            except Exception:
                # Nothing of ours raises here. If it does, it is one connection's mishap, and not the others'.
                log.exception("a connection is not looked after any more")
                when = None
            if when is None:
                found.end()
            else:
                self._again(found, when)

    def _again(self, found: Watch, when: float) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), found))
        if self._due[0][2] is found:
            self._changed.ring()


_vigils: RunVar[Vigil | None] = RunVar("tailrace.link.vigil")
