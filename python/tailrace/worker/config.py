"""What a worker is told before it starts: `tailrace.toml` in its directory, read once.

Example::

    [worker]
    masters = ["tailrace://build.example:7117"]
    name = "w1"
    secret_file = "secret"             # beside this file, or an absolute path
    # numcpus = 4                      # what the master is told; default: the CPUs this process may use
    # report_environ = "filtered"      # "all", "none"; filtered leaves out names that look like secrets
    # delete_leftover_dirs = true      # remove directories that belong to no builder any more
    # keep_lost_commands = true        # when the master is lost, its commands run on, and nobody hears of them
    # when_full = "wait"               # when a command's spool is full, or its disk refuses, while the master is away:
                                       # its child waits. "gap": it writes on, what it writes is dropped, and the log
                                       # says how much

    [tls]                              # for tailrace+tls:// masters; all may be left out
    # ca_file = "ca.pem"
    # certificate_file = "w1.pem"
    # key_file = "w1.key"

    [limits]
    # ping_interval_s = 15
    # spool_bytes_max = 1073741824     # of one command's output, on disk, while the master is away
"""

from __future__ import annotations

import json
import os
import ssl
import tomllib
from typing import TYPE_CHECKING, Literal, cast

import attrs

from tailrace.errors import LocalProtocolError
from tailrace.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .helper import WhenFull

FILE = "tailrace.toml"

ReportEnviron = Literal["filtered", "all", "none"]


@attrs.frozen(kw_only=True)
class Manners:
    """What a worker tells about itself, and how it keeps its house.

    Attributes:
        numcpus: What the master is told; None: as many as this process may use.
        report_environ: What of the environment the master is told.
        delete_leftover_dirs: Whether directories that belong to no builder are removed.
        keep_lost_commands: Whether commands whose master is lost run on. Otherwise they are interrupted.
        when_full: What a command does when its output has no room left on the disk, and its master is away.
    """

    numcpus: int | None = None
    report_environ: ReportEnviron = "filtered"
    delete_leftover_dirs: bool = False
    keep_lost_commands: bool = False
    when_full: WhenFull = "wait"


@attrs.frozen(kw_only=True)
class WorkerConfig:
    """A worker's `tailrace.toml`."""

    directory: Path
    masters: tuple[str, ...]
    name: str
    secret: str = attrs.field(repr=False)
    manners: Manners = attrs.field(factory=Manners)
    limits: Limits = attrs.field(factory=Limits)
    tls: ssl.SSLContext | None = None


def create_worker(
    directory: Path, *, masters: Sequence[str], name: str, secret: str, delete_leftover_dirs: bool = False
) -> None:
    """Writes a worker's directory: `tailrace.toml`, `secret` (mode 0600), `info/` for notes.

    Raises:
        FileExistsError: There is a worker already.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "info").mkdir(exist_ok=True)
    text = f'[worker]\nmasters = {json.dumps(list(masters))}\nname = {json.dumps(name)}\nsecret_file = "secret"\n'
    if delete_leftover_dirs:
        text += "delete_leftover_dirs = true\n"
    with (directory / FILE).open("x", encoding="utf-8") as file:
        file.write(text)
    descriptor = os.open(directory / "secret", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # one that was there keeps its mode else
        file.write(f"{secret}\n")


def read_config(directory: Path) -> WorkerConfig:
    """Reads a worker's directory.

    Raises:
        LocalProtocolError: A setting is missing or wrong; the text says which, where, and what is expected.
        OSError: A file cannot be read.
    """
    path = directory / FILE
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalProtocolError(f"{path}: not TOML: {error}") from error
    top = _Table(path, "", tables)
    worker, tls = top.table("worker"), top.table("tls")
    config = WorkerConfig(
        directory=directory,
        masters=worker.texts("masters"),
        name=worker.text("name"),
        secret=_secret(directory / worker.text("secret_file")),
        manners=Manners(
            numcpus=worker.optional_count("numcpus"),
            report_environ=worker.word("report_environ"),
            delete_leftover_dirs=worker.flag("delete_leftover_dirs"),
            keep_lost_commands=worker.flag("keep_lost_commands"),
            when_full=worker.when_full("when_full"),
        ),
        limits=_limits(path, top.table("limits")),
        tls=_tls(directory, tls),
    )
    for table in (top, worker, tls):
        table.refuse_others()
    return config


class _Table:
    """A table of the file, which knows what was asked for, so that what nobody asks for can be refused."""

    def __init__(self, path: Path, name: str, values: Mapping[str, object]) -> None:
        self.values = values
        self._path = path
        self._name = name
        self._known: set[str] = set()

    def table(self, key: str) -> _Table:
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "a table")
        return _Table(self._path, key, cast("dict[str, object]", value))

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, "a string that is not empty")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self._get(key, None) is None else self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key, None)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
            raise self._wrong(key, "a list of strings, with one at least")
        return tuple(cast("list[str]", value))

    def flag(self, key: str) -> bool:
        value = self._get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def optional_count(self, key: str) -> int | None:
        value = self._get(key, None)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise self._wrong(key, "a whole number, 1 or more")
        return value

    def word(self, key: str) -> ReportEnviron:
        match self._get(key, "filtered"):
            case "filtered":
                return "filtered"
            case "all":
                return "all"
            case "none":
                return "none"
            case _:
                raise self._wrong(key, '"filtered", "all" or "none"')

    def when_full(self, key: str) -> WhenFull:
        match self._get(key, "wait"):
            case "wait":
                return "wait"
            case "gap":
                return "gap"
            case _:
                raise self._wrong(key, '"wait" or "gap"')

    def refuse_others(self) -> None:
        for key in self.values:
            if key not in self._known:
                raise LocalProtocolError(f"{self._path}: there is no setting {self._full(key)}")

    def _get(self, key: str, default: object) -> object:
        self._known.add(key)
        return self.values.get(key, default)

    def _wrong(self, key: str, expected: str) -> LocalProtocolError:
        what = "must be" if key in self.values else "is missing; it must be"
        return LocalProtocolError(f"{self._path}: {self._full(key)} {what} {expected}")

    def _full(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key


def _secret(path: Path) -> str:
    secret = path.read_text(encoding="utf-8").strip()
    if not secret:
        raise LocalProtocolError(f"{path}: there is no secret in it")
    return secret


def _limits(path: Path, table: _Table) -> Limits:
    names = {field.name for field in attrs.fields(Limits)}
    for key, value in table.values.items():
        if key not in names:
            raise LocalProtocolError(f"{path}: there is no limit {key!r}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise LocalProtocolError(f"{path}: limits.{key} must be a number")
    try:
        return Limits(**cast("dict[str, int]", dict(table.values)))
    except ValueError as error:
        raise LocalProtocolError(f"{path}: {error}") from error


def _tls(directory: Path, table: _Table) -> ssl.SSLContext | None:
    """A context, if one of the settings is there. Without one, `link` takes the system's authorities."""
    authority, certificate = table.optional_text("ca_file"), table.optional_text("certificate_file")
    key = table.optional_text("key_file")
    if authority is None and certificate is None:
        return None
    context = ssl.create_default_context(cafile=str(directory / authority) if authority else None)
    if certificate is not None:
        context.load_cert_chain(directory / certificate, directory / key if key else None)
    return context
