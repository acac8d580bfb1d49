"""One direction of the proxy: what is done to its bytes, and how many there were."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import Literal

import attrs
import trio

# Under a throttle a piece is what may pass in this time, so that it trickles.
TRICKLE_S = 0.05

How = Literal["rst", "fin"]
Mode = Literal["pass", "stall", "swallow"]


@attrs.frozen(order=True)
class Cut:
    """After byte `at` of a direction its connection ends: by RST, or by FIN behind all that came before."""

    at: int
    how: How = attrs.field(default="rst", order=False)


class Way:
    """A direction, over all connections of a proxy; counted from the proxy's begin."""

    def __init__(self) -> None:
        self.mode: Mode = "pass"
        """`stall`: nothing is read, and all of it comes later. `swallow`: read and dropped, so that it is missing."""
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        """0: as fast as it goes."""
        self.bytes = 0
        """That were passed on, or are about to be."""
        self.swallowed = 0
        self.cuts: list[Cut] = []
        self._changed = trio.Event()

    @property
    def piece_bytes(self) -> int:
        """What is written at once under a throttle."""
        return max(int(self.bytes_per_s * TRICKLE_S), 1)

    def change(
        self, *, mode: Mode | None = None, delay_s: float | None = None, bytes_per_s: float | None = None
    ) -> None:
        self.mode = self.mode if mode is None else mode
        self.delay_s = self.delay_s if delay_s is None else delay_s
        self.bytes_per_s = self.bytes_per_s if bytes_per_s is None else bytes_per_s
        self._changed.set()
        self._changed = trio.Event()

    def cut(self, at: int, how: How = "rst") -> None:
        """Cut the connection that carries byte `at`, behind it; if that was passed already, with the next byte."""
        insort(self.cuts, Cut(at, how))

    def pass_on(self, data: bytes) -> tuple[bytes, Cut | None]:
        """What of `data` still goes through, and what happens then."""
        if not self.cuts or self.bytes + len(data) < self.cuts[0].at:
            self.bytes += len(data)
            return data, None
        cut = self.cuts.pop(0)
        data = data[: max(cut.at - self.bytes, 0)]
        self.bytes += len(data)
        return data, cut

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until it has been changed so that `condition` holds."""
        while not condition():
            await self._changed.wait()


class Buffer:
    """Bytes under way, each with the time at which it is due. Bounded; one task puts and one takes."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._woken = trio.Event()

    async def put(self, due: float, data: bytes, bytes_max: int) -> None:
        """Waits while `bytes_max` or more are under way."""
        while self._bytes >= bytes_max:
            await self._woken.wait()
        self._pieces.append((due, data))
        self._bytes += len(data)
        self._wake()

    async def take(self) -> tuple[float, bytes]:
        """The next one; `b""` is what was put as the end. It counts until `taken`."""
        while not self._pieces:
            await self._woken.wait()
        return self._pieces.popleft()

    def taken(self, data: bytes) -> None:
        self._bytes -= len(data)
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = trio.Event()
