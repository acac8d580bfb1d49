"""A farm of real processes on loopback, driven by the command line as its user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

TAILRACE = [sys.executable, "-m", "tailrace"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("TAILRACE")} | {"NO_COLOR": "1"}
PATIENCE_S = 60.0


class Daemon:
    """A `serve` process, and the lines that it prints."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*TAILRACE, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        self.lines: Queue[str | None] = Queue()
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def line(self, start: str) -> str:
        """The next printed line that begins with `start`."""
        while (line := self.lines.get(timeout=PATIENCE_S)) is not None:
            if line.startswith(start):
                return line
        raise AssertionError(f"ended without a line {start!r}; stderr: {''.join(self.errors)}")

    def stop(self, how: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(timeout=PATIENCE_S)
        for reader in self._readers:
            reader.join(timeout=PATIENCE_S)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def memory(self, key: str = "VmHWM") -> int:
        """Bytes of the process, from /proc: VmHWM is its peak, VmRSS what it has now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(key)

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)


def run_tailrace(*arguments: str | Path) -> None:
    """A command that has to work."""
    done = subprocess.run(
        [*TAILRACE, *map(str, arguments)], capture_output=True, timeout=PATIENCE_S, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, (arguments, done.returncode, done.stderr.decode(errors="replace"))


class Farm:
    """One master, and workers by name."""

    def __init__(self, directory: Path, *listen: str) -> None:
        self.directory = directory
        self.state = directory / "master"
        self.workers: dict[str, Daemon] = {}
        self.daemons: list[Daemon] = []
        urls = listen or ("tailrace://127.0.0.1:0",)
        self.tailrace("master", "create", self.state, *(f"--listen={url}" for url in urls))
        self.master = self.serve_master()

    def serve_master(self) -> Daemon:
        master = Daemon("master", "serve", self.state)
        self.daemons.append(master)
        self.urls = list(iter(lambda: master.line("").removeprefix("listening "), "ready"))
        return master

    def add_account(self, name: str) -> Path:
        """The file with the secret of a worker that may attach."""
        secret = self.directory / f"{name}.secret"
        self.tailrace("master", "add-worker", self.state, name, "--secret-file", secret)
        return secret

    def add_worker(self, name: str) -> Daemon:
        secret = self.add_account(name)
        home = self.directory / name
        self.tailrace("worker", "create", home, "--master", self.urls[0], "--name", name, "--secret-file", secret)
        worker = Daemon("worker", "serve", home)
        self.daemons.append(worker)
        self.workers[name] = worker
        worker.line("attached ")
        return worker

    def tailrace(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*TAILRACE, *map(str, arguments)],
            capture_output=True,
            timeout=PATIENCE_S * 2,
            env=ENVIRONMENT | {"TAILRACE_DIR": str(self.state)},
            check=False,
        )
        if check:
            assert done.returncode == 0, (arguments, done.returncode, done.stderr.decode(errors="replace"))
        return done

    def start(self, *arguments: str | Path, **options: object) -> subprocess.Popen[bytes]:
        """A client that goes on beside the test."""
        return subprocess.Popen(
            [*TAILRACE, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT | {"TAILRACE_DIR": str(self.state)},
            **options,  # type: ignore[call-overload]
        )

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.stop()
