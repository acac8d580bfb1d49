"""Buildbot's own worker and master as processes: what the Buildbot wires are checked against.

`buildbot` and `buildbot-worker` are installed beside this interpreter (the dev dependencies). Nothing of them is
imported here; they are started as their users start them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import attrs

Wire = Literal["pb", "msgpack"]
WIRES: tuple[Wire, ...] = ("pb", "msgpack")
PROTOCOLS = {"pb": "pb", "msgpack": "msgpack_experimental_v7"}
BIN = Path(sys.executable).parent
# These are other people's processes, and the machine may be busy. Nothing waits as long as that when all is well.
PATIENCE_S = 180.0
TEST_S = 400
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("TAILRACE")} | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "SECRET_TOKEN": "hush",
}

SUCCESS, WARNINGS, FAILURE, SKIPPED, EXCEPTION, RETRY, CANCELLED = range(7)

T = TypeVar("T")


class Process:
    """A daemon of Buildbot's that stays in the foreground, and what it logs."""

    def __init__(self, home: Path, *command: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._log = home / "output.log"
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(BIN / command[0]), *map(str, command[1:])],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT | dict(environment or {}),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended; `None`: it runs."""
        return self._process.poll()

    def log(self) -> str:
        """What it has written: its own log, and what came out of it."""
        paths = (self._log, self.home / "twistd.log")
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def wait_log(self, text: str) -> None:
        """Wait until it has logged this."""
        wait_for(lambda: text in self.log() or None, f"{text!r} in the log of {self.home}", self)

    def wait_exit(self) -> int:
        return self._process.wait(PATIENCE_S)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def wait_for(look: Callable[[], T | None], what: str, process: Process | None = None) -> T:
    """Look again and again until there is something. The other process has no way to tell us."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := look()) is None:
        if time.monotonic() > deadline or (process is not None and process.code is not None):
            said = process.log()[-4000:] if process is not None else ""
            raise AssertionError(f"waited in vain for {what}\n{said}")
        time.sleep(0.05)
    return found


# ---------------------------------------------------------------- the worker

_WORKER_TAC = """\
import os

from twisted.application import service
from buildbot_worker.bot import Worker

basedir = os.path.abspath(os.path.dirname(__file__))
application = service.Application('buildbot-worker')

buildmaster_host = {host!r}
port = {port!r}
workername = {name!r}
passwd = {password!r}
keepalive = 600
umask = 0o022
maxdelay = 300
numcpus = None
allow_shutdown = {allow_shutdown!r}
maxretries = None
use_tls = {use_tls!r}
connection_string = {connection_string!r}
delete_leftover_dirs = {delete_leftover_dirs!r}
protocol = {protocol!r}

s = Worker(None if connection_string else buildmaster_host, None if connection_string else port,
           workername, passwd, basedir,
           keepalive, umask=umask, maxdelay=maxdelay,
           numcpus=numcpus, allow_shutdown=allow_shutdown,
           maxRetries=maxretries, protocol=protocol, useTls=use_tls,
           connection_string=connection_string, delete_leftover_dirs=delete_leftover_dirs)
s.setServiceParent(application)
"""


def make_worker(
    home: Path,
    wire: Wire,
    port: int,
    *,
    name: str = "w1",
    password: str = "sesame",
    allow_shutdown: str | None = None,
    delete_leftover_dirs: bool = False,
    host: str = "127.0.0.1",
    use_tls: bool = False,
    connection_string: str | None = None,
) -> Path:
    """A worker's directory, as `buildbot-worker create-worker` makes one."""
    (home / "info").mkdir(parents=True, exist_ok=True)
    (home / "info" / "admin").write_text("Ada <ada@example.org>\n")
    (home / "info" / "host").write_text("a real worker\n")
    text = _WORKER_TAC.format(
        host=host,
        port=port,
        use_tls=int(use_tls),
        connection_string=connection_string,
        name=name,
        password=password,
        allow_shutdown=allow_shutdown,
        delete_leftover_dirs=delete_leftover_dirs,
        protocol=PROTOCOLS[wire],
    )
    (home / "buildbot.tac").write_text(text)
    return home


def start_worker(home: Path, **environment: str) -> Process:
    """Its process; `stop` it."""
    return Process(home, "buildbot-worker", "start", "--nodaemon", home, environment=environment)


@contextmanager
def real_worker(home: Path, wire: Wire, port: int, **options: object) -> Iterator[Process]:
    """Buildbot's own worker, which attaches to that port of this machine."""
    worker = start_worker(make_worker(home, wire, port, **options))  # type: ignore[arg-type]
    try:
        yield worker
    finally:
        worker.stop()


# ---------------------------------------------------------------- the master

_MASTER_TAC = """\
import os

from twisted.application import service
from buildbot.master import BuildMaster

basedir = os.path.abspath(os.path.dirname(__file__))
application = service.Application('buildmaster')
m = BuildMaster(basedir, 'master.cfg', None)
m.setServiceParent(application)
"""


@attrs.frozen(kw_only=True)
class Step:
    """What a master remembers of a step. `logs`: name → type letter of each line and the line."""

    name: str
    results: int | None
    state: str
    logs: Mapping[str, list[str]]

    def text(self, log: str = "stdio", letters: str = "oe") -> str:
        """The lines of these kinds: `o` stdout, `e` stderr, `h` header."""
        return "".join(line[1:] + "\n" for line in self.logs.get(log, []) if line[0] in letters)


@attrs.frozen(kw_only=True)
class Build:
    """What a master remembers of a finished build."""

    results: int
    state: str
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        [step] = [step for step in self.steps if step.name == name]
        return step


class RealMaster:
    """A real `buildbot` master with an sqlite database, which is told what to do by files in `orders`."""

    def __init__(self, home: Path, config: str) -> None:
        self.home = home
        home.mkdir(parents=True)
        (home / "orders").mkdir()
        (home / "buildbot.tac").write_text(_MASTER_TAC)
        (home / "master.cfg").write_text(config)
        self._orders = 0
        done = subprocess.run(
            [BIN / "buildbot", "upgrade-master", "--quiet", home], capture_output=True, env=ENVIRONMENT, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        self.start()

    def start(self) -> None:
        before = self.process.log().count("BuildMaster is running") if hasattr(self, "process") else 0
        self.process = Process(self.home, "buildbot", "start", "--nodaemon", self.home)
        wait_for(
            lambda: self.process.log().count("BuildMaster is running") > before or None, "the master", self.process
        )

    def order(self, text: str) -> None:
        """`build BUILDER`, `stop BUILDER`, `graceful WORKER`: see master.cfg."""
        self._orders += 1
        draft = self.home / "orders" / f".{self._orders}"
        draft.write_text(text)
        draft.rename(self.home / "orders" / f"{self._orders:04}")

    def wait_attached(self, worker: str) -> None:
        query = "select 1 from connected_workers c join workers w on w.id = c.workerid where w.name = ?"
        wait_for(lambda: self.rows(query, worker) or None, f"worker {worker}", self.process)

    def wait_detached(self, worker: str) -> None:
        query = "select 1 from connected_workers c join workers w on w.id = c.workerid where w.name = ?"
        wait_for(lambda: None if self.rows(query, worker) else True, f"the end of worker {worker}", self.process)

    def wait_step(self, builder: str, step: str, build: int = 1) -> None:
        """Wait until a step has begun."""
        query = (
            "select 1 from steps s join builds b on b.id = s.buildid join builders r on r.id = b.builderid "
            "where r.name = ? and b.number = ? and s.name = ? and s.started_at is not null"
        )
        wait_for(lambda: self.rows(query, builder, build, step) or None, f"step {step} of {builder}", self.process)

    def wait_build(self, builder: str, number: int = 1) -> Build:
        """Wait until a build is over."""
        query = (
            "select b.id, b.results, b.state_string from builds b join builders r on r.id = b.builderid "
            "where r.name = ? and b.number = ? and b.complete_at is not null"
        )
        rows = wait_for(lambda: self.rows(query, builder, number) or None, f"build {number} of {builder}", self.process)
        [(build, results, state)] = rows
        return Build(results=results, state=state, steps=tuple(self._steps(build)))

    def _steps(self, build: int) -> Iterator[Step]:
        query = "select id, name, results, state_string from steps where buildid = ? order by number"
        for step, name, results, state in self.rows(query, build):
            logs = {
                log: self._lines(number)
                for number, log in self.rows("select id, name from logs where stepid = ? order by id", step)
            }
            yield Step(name=name, results=results, state=state, logs=logs)

    def _lines(self, log: int) -> list[str]:
        chunks = self.rows("select content, compressed from logchunks where logid = ? order by first_line", log)
        assert all(compressed == 0 for _content, compressed in chunks)
        text = "\n".join(bytes(content).decode() for content, _compressed in chunks)
        return text.split("\n") if text else []

    def rows(self, query: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(f"file:{self.home / 'state.sqlite'}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def stop(self) -> None:
        self.process.stop()


def free_port() -> int:
    """A port of loopback that nobody has. A master that is restarted must find it again, so 0 does not do."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_repository(directory: Path) -> Path:
    """A git repository with two commits."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=master"]
        subprocess.run(
            [shutil.which("git") or "git", *identity, *arguments],
            cwd=directory,
            check=True,
            capture_output=True,
            env=ENVIRONMENT,
        )

    directory.mkdir(parents=True)
    git("init")
    for number in (1, 2):
        (directory / "README").write_text(f"version {number}\n")
        git("add", ".")
        git("commit", "-m", f"version {number}")
    return directory
