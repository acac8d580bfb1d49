"""One seed, from its first event to its last: a farm, its work, what goes wrong, and what must hold at the end."""

from __future__ import annotations

import contextlib
import gc
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import attrs
import trio
import trio.testing

from tailrace.limits import Limits
from tailrace.master.command import RunCommand

from .disk import Disk, SyncedLog
from .master import MasterMachine
from .network import FAULTS, Network, Weather
from .oracle import Broken, Oracle
from .order import ordered
from .transfer import Download, Upload, content
from .worker import WorkerMachine

# When faults have stopped, everything ends within this: virtual seconds.
PROGRESS_S = 600.0
# A story takes two minutes or so.
STORY_S = 2000.0
# And after that nothing is under way any more.
SETTLED_S = 10.0


@attrs.frozen(kw_only=True)
class Plan:
    """How much of everything a story has."""

    users: int = 2
    """Who start one run after another, until the network is good."""
    faults: int = 40
    """Connections that break, before the network is good."""
    master_crashes: int = 2
    worker_crashes: int = 2


@attrs.frozen(kw_only=True)
class Report:
    """What a story came to."""

    seed: int
    sessions: int
    connections: int
    stored_bytes: int
    transfers: int
    virtual_s: float
    lives: int


def play(
    seed: int, plan: Plan | None = None, mutation: Callable[[], contextlib.AbstractContextManager] | None = None
) -> Report:
    """Run a seed.

    Raises:
        Broken: an invariant does not hold. The same seed breaks it again.
    """
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="tailrace-simulation-", dir=shm if shm.is_dir() else None))
    gc.disable()  # a quarter of the time, for a story that is over in a moment
    try:
        with ordered(seed) as rng, (mutation or contextlib.nullcontext)():
            story = Story(seed, rng, plan or Plan(), root)
            clock = trio.testing.MockClock(autojump_threshold=0)
            return trio.run(story.run, clock=clock)
    finally:
        gc.enable()
        shutil.rmtree(root, ignore_errors=True)


class Story:
    def __init__(self, seed: int, rng: random.Random, plan: Plan, root: Path) -> None:
        self._seed = seed
        self._rng = rng
        self._plan = plan
        self._faults = plan.faults
        self._oracle = Oracle()
        self._disk = Disk(root, rng)
        self._network = Network(self._weather)
        windows = rng.choice((4096, 16384, 65536))
        self._limits = Limits(
            ping_interval_s=1,
            ping_timeout_s=3,
            handshake_timeout_s=5,
            close_timeout_s=1,
            duplicate_timeout_s=1,
            resume_grace_s=10_000,
            stream_window_bytes=windows,
            connection_window_bytes=windows * rng.choice((1, 2, 8)),
        )

    async def run(self) -> Report:
        begun = trio.current_time()
        try:
            with self._watched():
                await self._live()
        except BaseExceptionGroup as group:
            self._oracle.check()
            raise _first(group) from group
        self._oracle.check()
        return Report(
            seed=self._seed,
            sessions=self.worker.sessions,
            connections=self.connections,
            stored_bytes=self._oracle.stored_bytes,
            transfers=self._oracle.transfers,
            virtual_s=trio.current_time() - begun,
            lives=self.master.lives,
        )

    async def _live(self) -> None:
        async with trio.open_nursery() as world:
            self.connections = 0
            self.master = MasterMachine(self._network, self._oracle, self._disk, self._limits)
            self.worker = WorkerMachine(self._network, self._oracle, self._rng, self._limits, world)
            world.start_soon(self.master.run, lambda: self._rng.random() * 3)
            world.start_soon(self.worker.run)
            with trio.move_on_after(STORY_S) as patience:
                async with trio.open_nursery() as actors:
                    crashes = actors.start_soon
                    crashes(self._crash_masters)
                    crashes(self._crash_workers)
                    for _ in range(self._plan.users):
                        actors.start_soon(self._use)
            if patience.cancelled_caught:
                raise Broken("a user waits for ever")
            with trio.move_on_after(PROGRESS_S) as patience:
                await self._wait_done()
            if patience.cancelled_caught:
                raise Broken(f"no progress: {await self._unfinished()}")
            await self._check_end()
            world.cancel_scope.cancel()

    # ------------------------------------------------------------ what happens

    def _weather(self) -> Weather:
        """Of the next connection."""
        rng = self._rng
        self.connections += 1
        fault = None
        if self._faults > 0:
            self._faults -= 1
            fault = rng.choice(FAULTS)
        return Weather(
            fault=fault,
            after_bytes=int(300 + rng.choice((500, 1_000, 5_000)) * rng.random()),
            counts_up=rng.random() < 0.8,
            latency_s=rng.choice((0, 0, 0, 0.01, 0.3)),
            piece_bytes=rng.choice((1 << 20, 1 << 20, 1 << 20, 1000, 100)),
        )

    async def _use(self) -> None:
        """A user: one run after another, some of which are interrupted."""
        while self._faults > 0:
            await trio.sleep(self._rng.random())
            if self._rng.random() < 0.3:
                await self._transfer_once()
            else:
                await self._run_once()

    async def _transfer_once(self) -> None:
        rng = self._rng
        seed, size = rng.randrange(1 << 30), rng.choice((0, 1, 5_000, 30_000))
        lives = self.master.lives, self.worker.lives
        args: dict[str, object] = {"seed": seed, "size": size}
        if rng.random() < 0.5:
            args["writer"] = Upload(self._oracle, content(seed, size))
            result = await self.master.transfer("uploadFile", args)
        else:
            args["reader"] = Download(content(seed, size))
            result = await self.master.transfer("downloadFile", args)
        if result is not None:
            self._oracle.transfer_ended(result.rc, (self.master.lives, self.worker.lives) != lives)

    async def _run_once(self) -> None:
        rng = self._rng
        args: dict[str, object] = {
            "command": ["made", "up"],
            "seed": rng.randrange(1 << 30),
            "pieces": rng.choice((0, 2, 20, 40)),
            "piece_bytes": rng.choice((10, 100, 3000)),
            "pause_s": rng.choice((0, 0, 0.01, 0.3)),
        }
        if (run := await self.master.start(args)) is not None:
            await trio.sleep(rng.random())
            if rng.random() < 0.2:
                await self.master.interrupt(run.id)

    async def _crash_masters(self) -> None:
        for _ in range(self._plan.master_crashes):
            await trio.sleep(self._rng.random() ** 2 * 20)
            power = self._rng.random() < 0.6
            if power:
                with trio.move_on_after(10):
                    await self._oracle.promised.wait()
            self.master.crash(power=power)

    async def _crash_workers(self) -> None:
        for _ in range(self._plan.worker_crashes):
            await trio.sleep(self._rng.random() ** 2 * 20)
            self.worker.crash()

    # ------------------------------------------------------------ the end

    async def _wait_done(self) -> None:
        while await self._unfinished():  # noqa: ASYNC110 - nobody says it
            await trio.sleep(1)

    async def _unfinished(self) -> list[str]:
        """What is still under way."""
        store = await self.master.store()
        running = [f"run {info.id}" for info in await store.runs(limit=1000, state="running")]
        held = [f"child {child.key.command}" for child in self.worker.children]
        return running + held

    async def _check_end(self) -> None:
        """All runs have ended, each with all of its bytes, and nothing is left."""
        store = await self.master.store()
        for info in await store.runs(limit=1000):
            child = self._oracle.children.get(info.id)
            if info.state == "lost":
                self._oracle.lost(info.id)
                continue
            verified = await store.verify(info)
            if child is None or not verified.ok or verified.receipt is None:
                raise Broken(f"run {info.id} does not verify: {info}, {verified.problems}")
            if verified.bytes != len(child.truth):
                raise Broken(f"run {info.id}: {verified.bytes} bytes of {len(child.truth)} are there")
        await trio.sleep(SETTLED_S)
        for connection in self.master.connections:
            counted = connection.statistics()
            if counted.commands or counted.streams:
                raise Broken(f"left at the master: {counted}")

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """The oracle sees what is stored, and what is completed."""
        oracle, disk = self._oracle, self._disk
        complete = RunCommand.remote_complete

        def append(self: SyncedLog, batch, chain=None) -> None:
            oracle.stored(self.run, batch.start, batch.end, batch.raw)
            self.real.append(batch, chain)

        async def remote_complete(self: RunCommand, failure=None) -> None:
            oracle.completed(self)
            await complete(self, failure)
            # A process that was killed writes where nobody looks any more.
            if self._result is not None and self._result.state == "complete" and disk.holds(self._writer._path):
                oracle.finished.add(self.id)

        with (
            self._disk.watched(),
            mock.patch.object(SyncedLog, "append", append, create=True),
            mock.patch.object(RunCommand, "remote_complete", remote_complete),
        ):
            yield


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
