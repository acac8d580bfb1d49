"""A master's directory: `tailrace.toml`, the accounts, the master's id.

`tailrace.toml` is for people to edit and is never rewritten. `accounts` holds one `NAME SECRET` a line, mode 0600, and
is only ever replaced whole, under a lock, so that a reader sees the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import ssl
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from tailrace.errors import StoreError
from tailrace.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from tailrace.logs import Durability, WhenFull

CONFIG_FILE: Final = "tailrace.toml"
ACCOUNTS_FILE: Final = "accounts"
ID_FILE: Final = "master-id"
VERSION_FILE: Final = "state-version"

STATE_VERSION: Final = 1
"""Of the directory's layout. A directory that says more was written by a newer Tailrace, and is left alone."""

DEFAULT_ENDPOINT: Final = "tailrace://127.0.0.1:7117"

SECRET_BYTES: Final = 32
"""256 bits: a recorded login cannot be guessed off line (PROTOCOL.md section 3)."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@attrs.frozen(kw_only=True)
class MasterConfig:
    """What a master's directory says."""

    directory: Path
    master_id: str
    listen: tuple[str, ...]
    limits: Limits
    durability: Durability = "disk"
    when_full: WhenFull = "wait"
    certificate: Path | None = None
    key: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """The TLS side of the endpoints that need one.

        Raises:
            StoreError: the certificate or its key cannot be read.
        """
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # SSLError is one
            raise StoreError(f"{self.certificate}: {error.strerror or error}") from None
        return context


def create_master(directory: Path, listen: Sequence[str] = (DEFAULT_ENDPOINT,)) -> MasterConfig:
    """Make `directory` a master's: its configuration, an empty accounts file and an id.

    Raises:
        StoreError: it is one already, or a worker's.
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    text = (
        "# A Tailrace master. Limits, with their defaults, are described in the documentation.\n\n"
        f"[master]\nlisten = {json.dumps(list(listen), ensure_ascii=False)}\n\n[limits]\n"
    )
    try:
        with (directory / CONFIG_FILE).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise StoreError(f"{directory} is in use: it has a {CONFIG_FILE} already") from None
    _replace(directory / VERSION_FILE, f"{STATE_VERSION}\n", 0o644)
    _replace(directory / ID_FILE, secrets.token_hex(16) + "\n", 0o644)
    with _locked(directory):
        _replace(directory / ACCOUNTS_FILE, _accounts_text(_read_accounts(directory)), 0o600)
    return load(directory)


def load(directory: Path) -> MasterConfig:
    """Read a master's directory.

    Raises:
        StoreError: it is not a master's, of a newer version, or wrongly configured. One line says what and where.
    """
    check_version(directory)
    table = _read_toml(directory)
    path = directory / CONFIG_FILE
    known = {"master", "limits", "tls"}
    if unknown := sorted(table.keys() - known):
        raise StoreError(f"{path}: unknown table [{unknown[0]}]")
    certificate, key = _tls(path, table.get("tls"))
    master = _master(path, table["master"])
    return MasterConfig(
        directory=directory,
        master_id=master_id(directory),
        listen=_listen(path, master),
        limits=_limits(path, table.get("limits", {})),
        durability=_durability(path, master),
        when_full=_when_full(path, master),
        certificate=certificate,
        key=key,
    )


def check_version(directory: Path) -> None:
    """Raise StoreError if `directory` was written by a newer Tailrace. One that says nothing is taken as it is."""
    path = directory / VERSION_FILE
    try:
        text = path.read_text(encoding="ascii").strip()
        version = int(text)
    except FileNotFoundError:
        return
    except ValueError:
        raise StoreError(f"{path}: not a version number") from None
    if version > STATE_VERSION:
        raise StoreError(
            f"{directory} is of version {version}, this Tailrace knows up to {STATE_VERSION}: use a newer Tailrace"
        )


def check_worker_name(name: str) -> str:
    """`name`, if it may name a worker: letters, digits, `.`, `_` and `-`, not first a `.` or `-`, at most 64.

    Raises:
        StoreError: it may not.
    """
    if _NAME.fullmatch(name) is None:
        raise StoreError(
            f"{name!r} cannot name a worker: use up to 64 letters, digits, '.', '_' and '-', first a letter or digit"
        )
    return name


def load_accounts(directory: Path) -> dict[str, str]:
    """The workers' secrets by name. Waits for who is writing them."""
    with _locked(directory):
        return _read_accounts(directory)


def add_worker(directory: Path, name: str) -> str:
    """Give worker `name` a new secret, write the accounts, and return the secret. URL-safe, 256 bits.

    Raises:
        StoreError: the name will not do or is taken, or `directory` is not a master's.
    """
    check_worker_name(name)
    check_version(directory)
    _read_toml(directory)
    with _locked(directory):
        accounts = _read_accounts(directory)
        if name in accounts:
            raise StoreError(f"worker {name} exists already in {directory / ACCOUNTS_FILE}")
        accounts[name] = secrets.token_urlsafe(SECRET_BYTES)
        _replace(directory / ACCOUNTS_FILE, _accounts_text(accounts), 0o600)
    return accounts[name]


def remove_worker(directory: Path, name: str) -> None:
    """Forget worker `name`.

    Raises:
        StoreError: there is none.
    """
    with _locked(directory):
        accounts = _read_accounts(directory)
        if accounts.pop(name, None) is None:
            raise StoreError(f"no worker {name} in {directory / ACCOUNTS_FILE}")
        _replace(directory / ACCOUNTS_FILE, _accounts_text(accounts), 0o600)


def master_id(directory: Path) -> str:
    """The id that workers know this master by. Made anew where there is none."""
    path = directory / ID_FILE
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        text = ""
    if not text:
        text = secrets.token_hex(16)
        _replace(path, text + "\n", 0o644)
    return text


@contextlib.contextmanager
def serve_lock(directory: Path) -> Iterator[None]:
    """Hold `directory` for the one master that may serve it. The kernel lets go when the process ends, however it ends.

    Raises:
        StoreError: another one serves it.
    """
    with (directory / "master.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"a master serves {directory} already: stop it first") from None
        yield


def _read_toml(directory: Path) -> dict[str, object]:
    path = directory / CONFIG_FILE
    try:
        with path.open("rb") as file:
            table: dict[str, object] = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        hint = f"`tailrace master create {directory}` makes one"
        raise StoreError(f"{directory} is not a master's directory: {hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: {error}") from None
    if "master" not in table:
        raise StoreError(f"{directory} is not a master's directory: {path} has no [master]")
    return table


def _master(path: Path, table: object) -> Mapping[str, object]:
    if not isinstance(table, Mapping):
        raise StoreError(f"{path}: master must be a table")
    if unknown := sorted(table.keys() - {"listen", "durability", "when_full"}):
        raise StoreError(f"{path}: unknown name {unknown[0]} in [master]")
    return table


def _listen(path: Path, table: Mapping[str, object]) -> tuple[str, ...]:
    listen = table.get("listen")
    if not isinstance(listen, list) or not listen or not all(isinstance(item, str) for item in listen):
        raise StoreError(f'{path}: listen must be a list of endpoints, such as ["{DEFAULT_ENDPOINT}"]')
    return tuple(listen)


def _durability(path: Path, table: Mapping[str, object]) -> Durability:
    match table.get("durability", "disk"):
        case "disk" | "relaxed" as durability:
            return durability
        case other:
            raise StoreError(f'{path}: durability is "disk" or "relaxed", not {other!r}')


def _when_full(path: Path, table: Mapping[str, object]) -> WhenFull:
    match table.get("when_full", "wait"):
        case "wait" | "gap" as policy:
            return policy
        case other:
            raise StoreError(f'{path}: when_full is "wait" or "gap", not {other!r}')


def _tls(path: Path, table: object) -> tuple[Path | None, Path | None]:
    """Certificate chain and key, PEM; relative names are in the master's directory."""
    if table is None:
        return None, None
    if not isinstance(table, Mapping) or not table.keys() <= {"certificate", "key"} or "certificate" not in table:
        raise StoreError(f"{path}: [tls] holds certificate and key, names of PEM files")
    names = [table["certificate"], table.get("key", table["certificate"])]
    if not all(isinstance(name, str) for name in names):
        raise StoreError(f"{path}: [tls] holds certificate and key, names of PEM files")
    certificate, key = (path.parent / str(name) for name in names)
    return certificate, key


def _limits(path: Path, table: object) -> Limits:
    if not isinstance(table, Mapping):
        raise StoreError(f"{path}: limits must be a table")
    known = {field.name: field.type for field in attrs.fields(Limits)}
    for name, value in table.items():
        if name not in known:
            raise StoreError(f"{path}: unknown limit {name}; known are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise StoreError(f"{path}: limit {name} must be a number, not {value!r}")
        if known[name] in {"int", int} and not isinstance(value, int):
            raise StoreError(f"{path}: limit {name} must be a whole number, not {value!r}")
    try:
        return Limits(**dict(table))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: {error}") from None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        descriptor = os.open(directory / "accounts.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{directory} is not a master's directory: there is no such directory") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_accounts(directory: Path) -> dict[str, str]:
    path = directory / ACCOUNTS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    accounts = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2:
            raise StoreError(f"{path}:{number}: a line is a worker's name and its secret")
        accounts[words[0]] = words[1]
    return accounts


def _accounts_text(accounts: Mapping[str, str]) -> str:
    heading = "# The workers that may attach, and their secrets. `tailrace master add-worker` writes this file.\n"
    return heading + "".join(f"{name} {secret}\n" for name, secret in accounts.items())


def _replace(path: Path, text: str, mode: int) -> None:
    """Replace a small file whole and durably; a reader never sees half of it, nor another mode."""
    draft = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
