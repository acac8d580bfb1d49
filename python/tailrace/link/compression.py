"""Whether what goes over one connection goes compressed: where the line is slow, and both ends have time for it.

Each end says what it knows. Who receives knows whether it is the one that is waited for: compressed bytes are welcome
while it has little to do, and takes what comes as it comes. Who sends knows whether it has to wait, be it for room in
the socket or for the peer to let more through: so it sends them then. A master that is busy with a hundred workers
looks to each of them as a slow line does, but has no time to spare, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from tailrace.limits import KIB, MIB
from tailrace.link.leisure import Leisure

if TYPE_CHECKING:
    from tailrace.dialects.dialect import Compresses
    from tailrace.limits import Limits

LOOK_S: Final = 0.1
"""Of what lasts less nobody knows more than chance."""
GRANT_BYTES: Final = 32 * MIB
"""So much goes compressed, and then as it is again until the line is found to be full once more: it may have become
faster than the compressor."""
THOROUGH_BELOW_BYTES_S: Final = 32_000_000
"""So slow a line leaves time for more: up to a fifteenth is saved beyond that, at up to 1.3 times the price."""
LEVEL: Final = 1
LEVEL_THOROUGH: Final = 3
ARRIVED_BYTES: Final = 64 * KIB
"""How much has to arrive before the peer is told anything: most connections are quiet."""
# Of its own time: what a receiver has to have to spare before it invites, and below what it takes that back; a sender
# needs as much as that.
WELCOMES_FROM: Final = 0.5
WELCOMES_DOWN_TO: Final = 0.25
UNSETTLED_PART: Final = 0.4
"""Of a stream's window: a receiver who is waited for never has less than half of it before him, as he is let have more
when he has taken that."""
BEHIND_S: Final = 0.5
"""For so long: what was compressed comes in heaps, and so do files' blocks, and they are taken soon."""


@final
@attrs.define
class Compression:
    """Of one connection, in both directions."""

    _wire: Compresses
    _limits: Limits
    _leisure: Leisure = attrs.field(factory=Leisure.here)
    _looked: float = attrs.field(factory=trio.current_time)
    # How much of the time since then there was something to send that had to wait, and since when it does now.
    _waited_s: float = 0.0
    _waits_since: float | None = None
    _sent: int = 0
    _arrived: int = 0
    # Since when what lies before us was too much at each look.
    _behind_since: float | None = None
    _is_welcome: bool = False

    def sent(self, *, is_full: bool) -> None:
        """What could be sent was; the transport `is_full` if there is more."""
        waits = is_full or self._wire.is_held
        if not waits and self._waits_since is None:
            return
        now = trio.current_time()
        if self._waits_since is not None:
            self._waited_s += now - self._waits_since
        self._waits_since = now if waits else None
        if now - self._looked >= LOOK_S:
            self._look(now)

    def _look(self, now: float) -> None:
        took = now - self._looked
        sent = self._wire.statistics()["bytes_sent"]
        rate = (sent - self._sent) / took
        is_slow = self._waited_s >= took / 2 and rate < self._limits.compress_below_bytes_s
        if is_slow and self._leisure.share() >= WELCOMES_DOWN_TO:
            self._wire.compress(LEVEL_THOROUGH if rate < THOROUGH_BELOW_BYTES_S else LEVEL, GRANT_BYTES)
        self._looked, self._waited_s, self._sent = now, 0.0, sent

    def received(self, count: int) -> None:
        """So many bytes came."""
        self._arrived += count
        if self._arrived >= ARRIVED_BYTES:
            self._arrived = 0
            is_welcome = self._takes_what_comes() and self._has_time()
            if is_welcome != self._is_welcome:
                self._is_welcome = is_welcome
                self._wire.welcome_compressed(is_welcome)

    def _has_time(self) -> bool:
        return self._leisure.share() >= (WELCOMES_DOWN_TO if self._is_welcome else WELCOMES_FROM)

    def _takes_what_comes(self) -> bool:
        if self._wire.statistics()["unsettled"] <= self._limits.stream_window_bytes * UNSETTLED_PART:
            self._behind_since = None
            return True
        now = trio.current_time()
        if self._behind_since is None:
            self._behind_since = now
        return self._is_welcome and now - self._behind_since < BEHIND_S
