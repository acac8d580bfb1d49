"""What must hold, whatever happens. Each sentence is checked at every step that could break it."""

from __future__ import annotations

import logging
from weakref import WeakSet

import attrs
import trio

from tailrace.errors import ConnectionLost, RemoteProtocolError

from .child import Child

log = logging.getLogger("tailrace.simulation")


class Broken(AssertionError):
    """An invariant does not hold."""


@attrs.define
class Oracle:
    """Knows all children by their command's id, and looks on."""

    children: dict[str, Child] = attrs.field(factory=dict)
    accepted: set[str] = attrs.field(factory=set)
    """Runs of which the user was told that they have started."""
    finished: set[str] = attrs.field(factory=set)
    """Runs that are complete in the store."""
    _completed: WeakSet[object] = attrs.field(factory=WeakSet)
    power_cuts: int = 0
    stored_bytes: int = 0
    transfers: int = 0
    promised: trio.Event = attrs.field(factory=trio.Event)
    """Set whenever something more is said to be durable: the worst moment for a power cut."""
    problems: list[str] = attrs.field(factory=list)
    """What could not be raised where it was found."""

    def born(self, child: Child) -> None:
        """A command runs once."""
        if child.key.command in self.children:
            self._broken(f"command {child.key.command} was started twice")
        self.children[child.key.command] = child

    def stored(self, run: str, start: int, end: int, raw: bytes | memoryview) -> None:
        """What the master stores is what the child wrote, at the place where it wrote it."""
        child = self.children.get(run)
        if child is None:
            self._broken(f"run {run} has a log and no child")
        elif child.truth[start:end] != raw:
            self._broken(f"run {run}: bytes {start} to {end} are not what its child wrote")
        self.stored_bytes += end - start

    def acknowledged(self, child: Child, offset: int) -> None:
        """What is said durable does not exceed what there is."""
        if offset > len(child.truth):
            self._broken(f"run {child.key.command}: {offset} is durable, and there are {len(child.truth)}")
        log.info("%s is durable up to %d of %d", child.key.command, offset, len(child.truth))
        child.acknowledged = max(child.acknowledged, offset)
        self.promised.set()
        self.promised = trio.Event()

    def recovered(self, ends: dict[str, int], finished: set[str]) -> None:
        """A store was opened anew: everything that was said to be durable is in it."""
        self.finished = finished
        log.info("a master begins; it has %s", ends)
        for run, child in self.children.items():
            if child.acknowledged > ends.get(run, -1) and child.acknowledged:
                self._broken(f"run {run}: {child.acknowledged} were durable, and {ends.get(run)} are there")

    def completed(self, command: object) -> None:
        """`remote_complete` comes once."""
        if command in self._completed:
            self._broken("remote_complete came twice")
        self._completed.add(command)

    def delivered(self, child: Child) -> None:
        """The worker forgets a command when all of it is safe, and not before."""
        child.delivered = True
        if not child.journal.ended or child.acknowledged != len(child.truth):
            self._broken(f"run {child.key.command} was dropped at {child.acknowledged} of {len(child.truth)}")

    def lost(self, run: str) -> None:
        """A run is lost only if nobody was promised anything of it."""
        child = self.children.get(run)
        if child is not None and (child.acknowledged or (run in self.accepted and not self.power_cuts)):
            self._broken(f"run {run} was lost, of which {child.acknowledged} bytes were durable")

    def transferred(self, same: bool, what: str) -> None:
        """A file arrives as it was, each byte once, and is closed once, when all of it is there."""
        if not same:
            self._broken(f"the {what} is not what was sent")

    def transfer_ended(self, rc: int | None, disturbed: bool) -> None:
        """A transfer outlives every network; only the death of a process ends it."""
        self.transfers += 1
        if rc != 0 and not disturbed:
            self._broken(f"a transfer ended with {rc}, and nobody had died")

    def parted(self, why: Exception) -> None:
        """Networks break; the peers never break the protocol, of which credit is a part."""
        if isinstance(why, RemoteProtocolError) or (isinstance(why, ConnectionLost) and why.reason == "protocol"):
            self._broken(f"the protocol was broken: {why}")

    def forgotten(self, child: Child) -> None:
        """A master has no use for a command of which it has all, and for none that it knows of else."""
        child.forgotten = True
        run = child.key.command
        log.info("%s is forgotten at %d of %d", run, child.acknowledged, len(child.truth))
        if run in self.finished:
            # That it knows no more of it means that all of it is safe.
            child.acknowledged = len(child.truth)
        elif child.acknowledged or (run in self.accepted and not self.power_cuts):
            self._broken(f"run {run} was forgotten, of which {child.acknowledged} bytes were durable")

    def _broken(self, sentence: str) -> None:
        # Kept too: who called may be a callback whose errors are only logged.
        self.problems.append(sentence)
        raise Broken(sentence)

    def check(self) -> None:
        """Raise what was found."""
        if self.problems:
            raise Broken(self.problems[0])
