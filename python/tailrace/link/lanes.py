"""Builders that do one thing at a time: further commands go to further builders of the same directory.

On Perspective Broker a builder that is given a second command kills its first. A *lane* is a builder that the master's
user never sees: `linux` has `linux~2`, `linux~3` and so on beside it, as many as it needed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


@final
class Lanes:
    """The builders of one worker, with their lanes."""

    def __init__(self) -> None:
        self._directories: dict[str, str] = {}
        self._lanes: dict[str, list[str]] = {}

    def plan(self, builders: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """What to ask the worker for, to have these builders: they, and the lanes that they have already."""
        return [
            (lane, directory)
            for name, directory in builders
            for lane in (name, *(lane for lane in self._lanes.get(name, ()) if lane != name))
        ]

    def set(self, builders: Sequence[tuple[str, str]], names: Collection[str]) -> None:
        """These were asked for, and the worker has those of `names`, lanes included."""
        self._directories = {name: directory for name, directory in builders if name in names}
        self._lanes = {
            name: [lane for lane in self._lanes.get(name, [name]) if lane in names] for name in self._directories
        }

    @property
    def builders(self) -> list[tuple[str, str]]:
        """What the master's user has set."""
        return list(self._directories.items())

    def idle(self, builder: str, busy: Collection[str]) -> str | None:
        """Where the next command of this builder may go."""
        return next((lane for lane in self._lanes.get(builder, [builder]) if lane not in busy), None)

    def open(self, builder: str) -> None:
        """It needs one more. It is there when it was planned and set."""
        lanes = self._lanes.setdefault(builder, [builder])
        lane = f"{builder}~{len(lanes) + 1}"
        while lane in self._directories:
            lane += "~"
        lanes.append(lane)
