"""Floods take turns: what a hundred connections bring at once must not keep everything else waiting.

Whoever is about to read much asks for a turn. Few are given at a time, each for about one round of trio's loop, first
come, first served. So a round stays short, however many connections flood, and a call or a first line elsewhere has not
long to wait for the next one. Who waits finds more when its turn comes: the fewer rounds, the cheaper each byte; and
what it has read is handled before the next one's pushes it out of the processor's cache.
"""

from __future__ import annotations

from typing import Final, final

import trio
from trio.lowlevel import RunVar

from tailrace.link.here import here

_TURNS: Final = 4
"""Of about 1 MiB each: 4 MiB are handled within 10 ms (measured), and fewer turns would leave the loop idle."""


@final
class Floodgate:
    """The turns of one run of trio."""

    def __init__(self) -> None:
        self._free = _TURNS
        self._waiting: dict[object, trio.Event] = {}
        self._floods: set[object] = set()

    @staticmethod
    def here() -> Floodgate:
        """The one of this run."""
        return here(_gates, Floodgate)

    def note(self, who: object, *, in_flood: bool) -> None:
        """Whoever it is brings a flood, or does not any more."""
        (self._floods.add if in_flood else self._floods.discard)(who)

    @property
    def is_needed(self) -> bool:
        """There are more floods than turns. A few do without: a turn costs a round of the loop."""
        return len(self._floods) > _TURNS

    async def enter(self, who: object) -> None:
        """Wait for a turn. `leave` when it is over. Cancelled: there was none."""
        if self._free > 0:
            self._free -= 1
            return
        turn = self._waiting[who] = trio.Event()
        try:
            await turn.wait()
        except trio.Cancelled:
            if self._waiting.pop(who, None) is None:
                self.leave()
            raise

    def leave(self) -> None:
        """A turn is over."""
        self._free += 1
        if self._free > 0 and self._waiting:
            self._let_in(next(iter(self._waiting)))

    def hurry(self, who: object) -> None:
        """Whoever it is need not wait for its turn, if it does: somebody waits for what it is about to read."""
        if who in self._waiting:
            self._let_in(who)

    def _let_in(self, who: object) -> None:
        self._free -= 1
        self._waiting.pop(who).set()


_gates: RunVar[Floodgate | None] = RunVar("tailrace.link.floodgate")
