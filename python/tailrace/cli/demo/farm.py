"""A master and its workers as the real daemons, processes of their own, for as long as the demo runs."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio

from tailrace.cli.failure import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_PATIENCE_S = 20.0
_STOP_PATIENCE_S = 8.0


@asynccontextmanager
async def serving(*arguments: str | Path, errors: Path) -> AsyncIterator[Daemon]:
    """A `tailrace … serve` process, stopped at the end of the block, whatever ends it. Its stderr goes to `errors`."""
    environment = {key: value for key, value in os.environ.items() if key != "TAILRACE_DIR"}
    with errors.open("wb") as sink:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tailrace", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us, and we stop them in order
        )
    daemon = Daemon(process, errors)
    try:
        yield daemon
    finally:
        with trio.CancelScope(shield=True):
            await daemon.stop()


@final
class Daemon:
    """One of the processes, and what it prints."""

    def __init__(self, process: trio.Process, errors: Path) -> None:
        assert process.stdout is not None
        self._process = process
        self._stdout = process.stdout
        self._errors = errors
        self._text = b""

    async def line(self, begin: str) -> str:
        """The rest of the line that begins so, when it has been printed.

        Raises:
            Failure: it ended without, or takes too long. It says what the daemon said.
        """
        with trio.move_on_after(_PATIENCE_S):
            while True:
                for line in self._text.decode(errors="replace").splitlines(keepends=True):
                    if line.startswith(begin) and line.endswith("\n"):
                        return line.removeprefix(begin).strip()
                if not (data := await self._stdout.receive_some()):
                    break
                self._text += data
        said = [
            *self._text.decode(errors="replace").splitlines(),
            *self._errors.read_text(errors="replace").splitlines(),
        ]
        why = said[-1].removeprefix("tailrace: ") if said else "it did not say why"
        raise Failure(f"a daemon of the demo does not come up: {why}")

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            with trio.move_on_after(_STOP_PATIENCE_S):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._stdout.aclose()
