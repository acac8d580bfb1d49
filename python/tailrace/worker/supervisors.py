"""All supervisors of a worker: those that it starts, and those that an earlier daemon has left behind.

A short command's supervisor waits a moment for another command, in the same directory, instead of being made anew.

A supervisor outlives its daemon. The next one finds its directory, connects to it, and goes on. Where a supervisor has
died, another takes its place, which ends the command's journal truly.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final
from urllib.parse import quote

import attrs
import trio

from tailrace._core import Journal
from tailrace.errors import TailraceError

from .helper import Helper
from .label import FILE, SUFFIX, SUPERVISOR_LOST, Label, decode_label, encode_label, read_label, write_label
from .supervisor import RING, Supervised, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .helper import WhenFull

logger = logging.getLogger("tailrace.worker")

IDLE = "an idle supervisor"

RING_BYTES = 8 * 1024 * 1024
"""How far a child may be ahead of the master: two windows of a stream. One is on its way, or waits for a disk at the
master; from the other the next is sent meanwhile."""

SPOOL_BYTES_MAX = 1024 * 1024 * 1024
"""As in `Limits`."""

IDLE_S = 1.0
"""How long a supervisor waits for another command: a build's steps come at once, and what is idle is nobody's use."""

NAME_BYTES_MAX = 200
"""Of a directory that is named for a command: file systems allow 255."""


@final
@attrs.frozen
class Left:
    """A command that an earlier daemon has left, with its supervisor or with one that has taken over."""

    label: Label
    supervised: Supervised


@asynccontextmanager
async def open_supervisors(
    directory: Path,
    *,
    ring_bytes: int = RING_BYTES,
    spool_bytes_max: int = SPOOL_BYTES_MAX,
    when_full: WhenFull = "wait",
    idle_max: int = 0,
) -> AsyncIterator[Supervisors]:
    """Supervisors in `directory`, which is made if it is missing.

    What another daemon has left there is in `left`, if its master can come back to it; else it is ended and removed. On
    exit all that were not detached are closed, with what they run. So many as `idle_max` wait for another command, for
    a moment, when their own was a short one: to make a process, a directory and a ring takes longer than `true` does.
    """
    directory = Path(os.path.abspath(directory))  # noqa: ASYNC240 - asks no disk
    entries = await trio.to_thread.run_sync(_entries, directory)
    helper = Helper(ring_bytes, spool_bytes_max, when_full)
    async with trio.open_nursery() as nursery:
        supervisors = Supervisors(directory, helper, nursery, idle_max)
        nursery.start_soon(supervisors.dismiss_idle)
        try:
            await helper.open()
            await supervisors.find(entries)
            yield supervisors
        finally:
            await supervisors.aclose()
            nursery.cancel_scope.cancel()


@final
class Supervisors:
    """All supervisors of a worker."""

    def __init__(self, directory: Path, helper: Helper, nursery: trio.Nursery, idle_max: int = 0) -> None:
        self.directory = directory
        self.left: list[Left] = []
        """What an earlier daemon has left, and whoever opened this is to see to."""
        self.noted: list[tuple[Label, Path]] = []
        """Its commands without a supervisor, which ended with it, and where that was noted."""
        self._helper = helper
        self._nursery = nursery
        self._open: set[Supervised] = set()
        self._idle_max = idle_max
        # Since when, the last one last: it is the first to be taken, so that the others can go.
        self._idle: list[tuple[float, Supervised]] = []
        self._some_idle = trio.Event()
        self._closing = False

    @property
    def helper_pid(self) -> int | None:
        """The process of which all of them are forks."""
        return self._helper.pid

    async def start(self, name: str, label: Label | None = None) -> Supervised:
        """A supervisor for a command: an idle one, or else one that is started, in a directory of this name.

        With a label it can be found by a later daemon. Not cancelled once begun; it takes some milliseconds at most.

        Raises:
            OSError: there is a directory of that name, or the system has no room for another supervisor.
        """
        with trio.CancelScope(shield=True):
            if self._idle:
                _, supervised = self._idle.pop()
                supervised.name, supervised.is_idle = name, False
            else:
                directory = self.directory / _file_name(name)
                pid = await self._helper.start(directory)
                supervised = self._take(name, directory, pid, connect(directory), SUPERVISOR_LOST)
            supervised.stays = self._idle_max > 0
            if label is not None and not supervised.journal.set_label(encode_label(label)):
                # It goes with the directory.
                supervised.stays = False
                try:
                    await trio.to_thread.run_sync(write_label, supervised.directory / FILE, label)
                except BaseException:
                    await supervised.aclose()
                    raise
        return supervised

    async def note(self, name: str, label: Label) -> Path:
        """Notes a command without a supervisor, for a later daemon; gives the file, which is to be removed at its end.

        Raises:
            OSError: it cannot be written.
        """
        path = self.directory / f"{_file_name(name)}{SUFFIX}"
        await trio.to_thread.run_sync(write_label, path, label)
        return path

    async def find(self, entries: list[Path]) -> None:
        """Takes up what an earlier daemon has left."""
        async with trio.open_nursery() as nursery:
            for directory in entries:
                try:
                    if directory.suffix == SUFFIX and not directory.is_dir():
                        self.noted.append((read_label(directory), directory))
                        continue
                    if (useless := await self._take_up(directory)) is not None:
                        nursery.start_soon(useless.aclose)
                except (OSError, TailraceError) as error:
                    # Not guessed at, and not lost: whoever made it, or knows it, finds it there.
                    logger.error("%s: what is there is left alone: %s", directory, error)

    async def aclose(self) -> None:
        """Closes all supervisors that were not detached, and kills what they run. Bounded, and not cancelled."""
        self._closing = True
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for supervised in list(self._open):
                    nursery.start_soon(supervised.aclose)
            await self._helper.aclose()

    async def _take_up(self, directory: Path) -> Supervised | None:
        """One of an earlier daemon: into `left`, or back if nobody can want it."""
        if not (directory / RING).exists():
            await trio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
            return None
        label = _label(directory)
        why = SUPERVISOR_LOST if label is None else label.why_lost()
        try:
            pid, connection = 0, connect(directory)
        except OSError:
            pid, connection = await self._succeed(directory, why)
            logger.warning("%s: its supervisor is gone; another has taken over", directory.name)
        supervised = self._take(directory.name, directory, pid, connection, why)
        if label is None or not label.key.master:
            logger.info("%s: nobody can come back to this command, which is ended", directory.name)
            return supervised
        self.left.append(Left(label, supervised))
        return None

    async def dismiss_idle(self) -> None:
        """Lets those go that nobody has needed for a while."""
        while True:
            await self._some_idle.wait()
            await trio.sleep(IDLE_S / 2)
            until = trio.current_time() - IDLE_S
            while self._idle and self._idle[0][0] <= until:
                self._nursery.start_soon(self._idle.pop(0)[1].aclose)
            if not self._idle:
                self._some_idle = trio.Event()

    def _take(
        self, name: str, directory: Path, pid: int, connection: trio.socket.SocketType, why: tuple[str, str]
    ) -> Supervised:
        try:
            supervised = Supervised(name, directory, pid, connection, self._nursery)
        except BaseException:
            connection.close()
            raise
        self._open.add(supervised)
        self._nursery.start_soon(self._live, supervised, why)
        return supervised

    async def _live(self, supervised: Supervised, why: tuple[str, str]) -> None:
        async def succeed() -> tuple[int, trio.socket.SocketType]:
            logger.error("%s: its supervisor was killed; another takes over", supervised.name)
            return await self._succeed(supervised.directory, why)

        try:
            await supervised.live(succeed)
        finally:
            self._open.discard(supervised)
            self._idle = [(since, idle) for since, idle in self._idle if idle is not supervised]
        if supervised.is_fresh:
            await self._keep(supervised)
        elif supervised.was_handed_on or supervised.is_idle:
            await supervised.remove_directory()

    async def _keep(self, before: Supervised) -> None:
        """One whose command is over, and which is there for another."""
        idle = self._take(IDLE, before.directory, before.pid, before.connection, SUPERVISOR_LOST)
        if self._closing or len(self._idle) >= self._idle_max:
            await idle.aclose()
        else:
            idle.is_idle = True
            self._idle.append((trio.current_time(), idle))
            self._some_idle.set()

    async def _succeed(self, directory: Path, why: tuple[str, str]) -> tuple[int, trio.socket.SocketType]:
        """A supervisor in the place of one that has died."""
        pid = await self._helper.take_over(directory, why)
        return pid, connect(directory)


def _entries(directory: Path) -> list[Path]:
    """Makes `directory`; what is in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = [entry for entry in directory.iterdir() if not entry.is_symlink()]
    return sorted(entry for entry in found if entry.is_dir() or entry.suffix == SUFFIX)


def _label(directory: Path) -> Label | None:
    """Whose command it is; none: it was never accepted.

    Raises:
        OSError: its ring is not one that is known here.
        LocalProtocolError: it cannot be read.
    """
    try:
        return read_label(directory / FILE)
    except FileNotFoundError:
        text = Journal.map(str(directory / RING)).label
        return None if text is None else decode_label(text, directory / RING)


def _file_name(command: str) -> str:
    """A command's id as the name of a directory: readable, with nothing in it that leads elsewhere, not too long."""
    name = quote(command, safe=" +,:=@", errors="surrogatepass")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if 0 < len(name) <= NAME_BYTES_MAX:
        return name
    digest = hashlib.blake2b(command.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{name[: NAME_BYTES_MAX - 40]}~{digest}"
