"""A virtual disk under the real store: what was not synced may be gone after a power cut, whole, in part, or torn.

The store writes to a directory in memory, as ever. What it syncs is noted; at a crash the next process gets a copy of
the directory. When only the process died that is everything; when the power was cut it is what was synced, and of the
rest what the seed lets survive.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tailrace._core import LogWriter
from tailrace.logs import directory as files
from tailrace.logs import recovery, store


class Disk:
    """The directories of one master's lives, one after another."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._root = root
        self._rng = rng
        self._life = 0
        self.path = root / "0"
        self.path.mkdir()
        # Of files how many bytes are safe; of directories which names.
        self._safe: dict[str, int] = {}
        self._names: dict[str, set[str]] = {}
        self.broken = False
        """Syncs do nothing, and say that they did: a build that is broken on purpose."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """In the block the store's syncs are seen."""
        real = files.sync_file

        def sync_file(path: Path) -> None:
            real(path)
            self._note(path)

        class Log(SyncedLog):
            disk = self

        with (
            mock.patch.object(files, "sync_file", sync_file),
            mock.patch.object(store, "LogWriter", Log),
            mock.patch.object(recovery, "LogWriter", Log),
        ):
            yield

    def note_log(self, directory: str) -> None:
        """The segments of a log are safe, and so are their names."""
        if not self.broken:
            path = Path(directory)
            for segment in path.glob("*.seg"):
                self._note(segment)
            self._note(path)

    def holds(self, path: Path) -> bool:
        """Whether it is the present process that writes there."""
        return path.is_relative_to(self.path)

    def crash(self, *, power: bool) -> None:
        """The process dies; with `power` so does the machine. `path` is what the next one finds."""
        self._life += 1
        target = self._root / str(self._life)
        shutil.copytree(self.path, target)
        if power:
            self._forget(self.path, target)
        self._safe = {name.replace(str(self.path), str(target), 1): size for name, size in self._safe.items()}
        self._names = {name.replace(str(self.path), str(target), 1): names for name, names in self._names.items()}
        self.path = target

    def _note(self, path: Path) -> None:
        if path.is_dir():
            self._names[str(path)] = set(os.listdir(path))
        elif path.exists():
            self._safe[str(path)] = path.stat().st_size

    def _forget(self, source: Path, target: Path) -> None:
        """What the power cut takes away."""
        rng = self._rng
        runs = source / "runs"
        for run in sorted(runs.iterdir()):
            if run.name not in self._names.get(str(runs), ()) and rng.random() < 0.5:
                shutil.rmtree(target / "runs" / run.name)
                continue
            for file in sorted(run.iterdir()):
                self._forget_file(file, target / "runs" / run.name / file.name)
        if rng.random() < 0.3:
            # The catalogue can be made again, and at times it has to be.
            for name in target.glob("catalogue.sqlite*"):
                name.unlink()

    def _forget_file(self, file: Path, target: Path) -> None:
        rng, size = self._rng, file.stat().st_size
        safe = min(self._safe.get(str(file), 0), size)
        if file.name not in self._names.get(str(file.parent), ()) and rng.random() < 0.5:
            target.unlink()
            return
        if safe == size or rng.random() < 0.3:
            return
        kept = rng.randint(safe, size)
        with target.open("r+b") as copy:
            copy.truncate(kept)
            if rng.random() < 0.3:
                # The length was written, the blocks were not.
                copy.truncate(size)


class SyncedLog:
    """A `LogWriter` whose syncs are noted."""

    disk: Disk

    def __init__(self, log: LogWriter, directory: str) -> None:
        self.real = log
        self.run = os.path.basename(directory)
        self._directory = directory

    @classmethod
    def create(cls, directory: str) -> SyncedLog:
        return cls(LogWriter.create(directory), directory)

    @classmethod
    def recover(cls, directory: str) -> SyncedLog:
        return cls(LogWriter.recover(directory), directory)

    @classmethod
    def seal_next(cls, directory: str) -> bool:
        """Nothing is compressed here: it takes real time, and has tests of its own. But it is synced."""
        cls.disk.note_log(directory)
        return False

    def sync(self) -> None:
        self.real.sync()
        self.disk.note_log(self._directory)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)
