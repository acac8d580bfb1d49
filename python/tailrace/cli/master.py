"""`tailrace master create`, `add-worker` and `serve`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence  # noqa: TC003  (cyclopts reads the annotations)
from pathlib import Path  # noqa: TC003  (cyclopts reads the annotations)
from typing import final

from tailrace.link.endpoint import Endpoint
from tailrace.master import config

from .buildbot_line import buildbot_line
from .failure import Failure, usage
from .settings import Settings, Told
from .show import print_json
from .streams import announce, write_at_once


def create(directory: Path, /, *, listen: Sequence[str] = (), told: Told) -> int:
    """Make a directory for a master: its configuration, and where it will keep runs.

    As in: `tailrace master create m --listen tailrace://0.0.0.0:7117`

    Workers of Buildbot's attach to `pb://0.0.0.0:9989`, or to `msgpack://…`; what to type on their machines is printed.

    Parameters
    ----------
    directory
        The new master's directory.
    listen
        Where workers attach; default tailrace://127.0.0.1:7117. May be given several times; port 0 is any free one.
    """
    with usage():
        endpoints = [Endpoint.parse(url) for url in listen]
    config.create_master(directory, listen or [config.DEFAULT_ENDPOINT])
    lines = {str(endpoint): line for endpoint in endpoints if (line := buildbot_line(endpoint)) is not None}
    if told.json:
        for url, line in lines.items():
            print_json({"endpoint": url, "buildbot_worker": line})
    elif lines:
        print(f"After `tailrace master add-worker {directory} NAME`, which prints SECRET, on the worker's machine:")
        for line in lines.values():
            print(f"  {line}")
    return 0


async def add_worker(directory: Path, name: str, /, *, secret_file: Path | None = None, told: Told) -> int:
    """Let a worker attach: print its new secret, alone on a line.

    As in: `tailrace master add-worker m w1 --secret-file w1.secret`. A serving master knows it at once.

    Parameters
    ----------
    directory
        The master's directory.
    name
        The worker's name.
    secret_file
        Write the secret into this new file (mode 0600) instead of printing it.
    """
    if secret_file is None:
        secret = await _add(directory, name)
        print_json({"name": name, "secret": secret}) if told.json else print(secret, flush=True)
        return 0
    try:
        descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Failure(
            f"{secret_file} is there already", "name a new file, lest another worker's secret is lost"
        ) from None
    with os.fdopen(descriptor, "w") as file:
        try:
            file.write(await _add(directory, name) + "\n")
        except BaseException:
            os.unlink(secret_file)
            raise
    if told.json:
        print_json({"name": name, "secret_file": str(secret_file)})
    return 0


async def serve(directory: Path, /) -> int:
    """Serve a master until SIGTERM or Ctrl-C.

    As in: `tailrace master serve m`. Prints `listening URL` for each endpoint, then `ready`.

    Parameters
    ----------
    directory
        The master's directory.
    """
    from tailrace.web import serve_master

    logging.basicConfig(level=logging.WARNING, format="tailrace: %(message)s", handlers=[_Stderr()], force=True)
    await serve_master(directory, announce=announce)
    return 0


@final
class _Stderr(logging.Handler):
    """A daemon's log on standard error; whoever gives it lines to write cannot make it wait for their reader."""

    def emit(self, record: logging.LogRecord) -> None:
        write_at_once(2, f"{self.format(record)}\n".encode(errors="backslashreplace"))


async def _add(directory: Path, name: str) -> str:
    """Through the master, if one is serving there; else into its files."""
    from .api import SOCKET, MasterAbsent, open_api

    config.check_worker_name(name)
    if (directory / SOCKET).exists():
        try:
            async with open_api(Settings(directory=directory)) as api:
                return await api.add_worker(name)
        except MasterAbsent:
            pass  # it was killed, and its socket was left
    return config.add_worker(directory, name)
