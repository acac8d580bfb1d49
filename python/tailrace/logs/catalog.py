"""Runs, workers and builders in SQLite. Everything in it is a copy: `LogStore.rebuild` makes it again.

All methods block, and are called by one thread at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Final, final

import attrs

from tailrace.errors import StoreError
from tailrace.logs.info import RunInfo, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, started REAL NOT NULL, state TEXT NOT NULL, worker TEXT NOT NULL, builder TEXT,
    sealed INTEGER NOT NULL DEFAULT 0,
    info TEXT NOT NULL
);
CREATE INDEX runs_started ON runs (started DESC, id DESC);
CREATE INDEX runs_state ON runs (state, started DESC, id DESC);
CREATE INDEX runs_unsealed ON runs (started) WHERE sealed = 0;
CREATE TABLE workers (
    name TEXT PRIMARY KEY, instance TEXT NOT NULL, first_seen REAL NOT NULL, last_seen REAL NOT NULL, info TEXT NOT NULL
);
CREATE TABLE builders (worker TEXT, name TEXT, last_seen REAL NOT NULL, PRIMARY KEY (worker, name));
"""

_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""No database, or none of ours. Other codes speak of the disk, or of who else has it open."""

_UNSEALED, _SEALED, _UNSEALABLE = 0, 1, 2


@final
@attrs.frozen(kw_only=True)
class WorkerSeen:
    """A worker that was attached once. Times are Unix seconds."""

    name: str
    instance: str
    first_seen: float
    last_seen: float
    info: Mapping[str, object]


@final
@attrs.frozen(kw_only=True)
class BuilderSeen:
    """A builder that a worker once had."""

    worker: str
    name: str
    last_seen: float


@final
class Catalog:
    """The catalogue of one store. Raises StoreError when SQLite does not do what it should."""

    def __init__(self, path: Path) -> None:
        """Open it, or make an empty one.

        Raises:
            StoreError: it is of a newer version.
            CatalogDamaged: it cannot be read, and has to be made again.
        """
        self._path = path
        # Command lines are as private as the logs, and SQLite would leave it to the umask. Its other files follow.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            self._open()
        except sqlite3.Error as error:
            self._db.close()
            # A primary code is the low byte of an extended one.
            kind = CatalogDamaged if error.sqlite_errorcode & 0xFF in _DAMAGE else StoreError
            raise kind(f"the catalogue {path}: {error}") from error
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the file. The write-ahead log goes into it."""
        self._db.close()

    def put(self, info: RunInfo) -> None:
        """Add a run, or change it. One that has ended waits to be sealed from then on."""
        self.put_all([info])

    def put_all(self, infos: Iterable[RunInfo]) -> None:
        """Add or change several: all of them, or none."""
        with self._transaction():
            self._put(infos)

    def replace_all(self, infos: Iterable[RunInfo]) -> None:
        """Forget all runs but these."""
        with self._transaction():
            self._db.execute("DELETE FROM runs")
            self._put(infos)

    def runs(self, limit: int, before: str | None, state: str | None) -> list[RunInfo]:
        """The latest runs first, from before the run `before` on, in that state."""
        where, values = ["1"], list[object]()
        if before is not None:
            where.append("(started, id) < (SELECT started, id FROM runs WHERE id = ?)")
            values.append(before)
        if state is not None:
            where.append("state = ?")
            values.append(state)
        query = f"SELECT info FROM runs WHERE {' AND '.join(where)} ORDER BY started DESC, id DESC LIMIT ?"
        return self._infos(query, *values, limit)

    def find(self, name: str) -> RunInfo:
        """The run with that id, or with the one id that begins so; `last`: the latest.

        Raises:
            StoreError: there is none, or more than one.
        """
        if name == "last":
            found = self.runs(1, None, None)
            if not found:
                raise StoreError("there are no runs yet")
            return found[0]
        if exact := self._infos("SELECT info FROM runs WHERE id = ?", name):
            return exact[0]
        found = self._infos("SELECT info FROM runs WHERE id >= ? AND id < ? LIMIT 4", name, name + "\U0010ffff")
        if not name or not found:
            raise StoreError(f"there is no run {name!r}")
        if len(found) > 1:
            ids = ", ".join(info.id for info in found[:3]) + (", …" if len(found) > 3 else "")
            raise StoreError(f"{name!r} begins the ids of several runs: {ids}")
        return found[0]

    def ids(self) -> set[str]:
        """Of all runs."""
        with self._errors():
            return {run_id for (run_id,) in self._db.execute("SELECT id FROM runs")}

    def running(self) -> list[RunInfo]:
        """The runs that are said to be running."""
        return self._infos("SELECT info FROM runs WHERE state = 'running'")

    def unsealed(self, limit: int) -> list[str]:
        """The runs that have waited longest to be sealed."""
        query = "SELECT id FROM runs WHERE sealed = 0 AND state != 'running' ORDER BY started LIMIT ?"
        with self._errors():
            return [run_id for (run_id,) in self._db.execute(query, (limit,))]

    def sealed(self, done: Mapping[str, bool]) -> None:
        """Note for each run whether it was sealed, or cannot be for now."""
        rows = [(_SEALED if sealed else _UNSEALABLE, run_id) for run_id, sealed in done.items()]
        with self._transaction():
            self._db.executemany("UPDATE runs SET sealed = ? WHERE id = ?", rows)

    def note_worker(self, name: str, instance: str, info: Mapping[str, object], now: float) -> None:
        """A worker is attached now."""
        query = """
            INSERT INTO workers VALUES (?, ?, ?, ?, ?) ON CONFLICT (name)
            DO UPDATE SET instance = excluded.instance, last_seen = excluded.last_seen, info = excluded.info
        """
        with self._errors():
            self._db.execute(query, (name, instance, now, now, json.dumps(dict(info), default=str)))

    def note_builder(self, worker: str, name: str, now: float) -> None:
        """A worker has a builder."""
        query = "INSERT INTO builders VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen"
        with self._errors():
            self._db.execute(query, (worker, name, now))

    def workers(self) -> list[WorkerSeen]:
        """All that were ever attached, by name."""
        query = "SELECT name, instance, first_seen, last_seen, info FROM workers ORDER BY name"
        with self._errors():
            return [
                WorkerSeen(name=name, instance=instance, first_seen=first, last_seen=last, info=json.loads(info))
                for name, instance, first, last, info in self._db.execute(query)
            ]

    def builders(self) -> list[BuilderSeen]:
        """All that there ever were, by worker and name."""
        with self._errors():
            rows = self._db.execute("SELECT worker, name, last_seen FROM builders ORDER BY worker, name").fetchall()
        return [BuilderSeen(worker=worker, name=name, last_seen=last) for worker, name, last in rows]

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # A commit survives the process. The machine's death may cost the last ones: run.json tells them again.
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} is of version {version}, this Tailrace knows up to {SCHEMA_VERSION}: "
                "use a newer Tailrace"
            )
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
        self._db.execute("UPDATE runs SET sealed = ? WHERE sealed = ?", (_UNSEALED, _UNSEALABLE))
        self._db.execute("SELECT id, started, state, worker, builder, sealed, info FROM runs LIMIT 1").fetchall()

    def _put(self, infos: Iterable[RunInfo]) -> None:
        # What is as it was is not written: who opens a store would wait for a sync, behind all that the disk has to do.
        query = """
            INSERT INTO runs (id, started, state, worker, builder, info) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET state = excluded.state, info = excluded.info, sealed = 0
            WHERE runs.info != excluded.info OR runs.sealed != 0
        """
        rows = ((it.id, it.started, it.state, it.worker, it.builder, to_json(it)) for it in infos)
        self._db.executemany(query, rows)

    def _infos(self, query: str, *values: object) -> list[RunInfo]:
        with self._errors():
            rows = self._db.execute(query, values).fetchall()
            return [from_json(text) for (text,) in rows]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"the catalogue {self._path}: {error}") from error


class CatalogDamaged(StoreError):
    """The catalogue's file is not one."""
