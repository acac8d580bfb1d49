"""A master that stops for longer than its connection lives: the worker stays small, and the log goes on exactly."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import time

from .farm import Daemon

SPOOL_BYTES_MAX = 60_000_000
LIMITS = f"""
[limits]
ping_interval_s = 1
ping_timeout_s = 3
spool_bytes_max = {SPOOL_BYTES_MAX}
"""
NUMBERS = 20_000_000


def test_a_master_that_is_stopped_for_a_while(own_farm):
    farm = own_farm
    secret = farm.add_account("w1")
    home = farm.directory / "w1"
    farm.tailrace("worker", "create", home, "--master", farm.urls[0], "--name", "w1", "--secret-file", secret)
    with (home / "tailrace.toml").open("a") as settings:
        settings.write(LIMITS)
    worker = Daemon("worker", "serve", home)
    farm.daemons.append(worker)
    worker.line("attached ")
    farm.tailrace("run", "--", "true")
    idle = worker.memory("VmRSS")
    run = farm.tailrace("run", "--detach", "--", "sh", "-c", f"echo; sleep 1; seq {NUMBERS}").stdout.decode().strip()
    (directory,) = (home / ".tailrace").iterdir()
    farm.master.process.send_signal(signal.SIGSTOP)
    worker.line("waiting ")
    deadline = time.monotonic() + 30
    while (spooled := _spooled(directory)) < SPOOL_BYTES_MAX * 0.9:
        assert time.monotonic() < deadline, spooled
        time.sleep(0.05)
    assert _spooled(directory) <= SPOOL_BYTES_MAX
    assert worker.memory() - idle < 32 << 20
    farm.master.process.send_signal(signal.SIGCONT)
    worker.line("attached ")
    assert farm.tailrace("logs", run, "-f", "--raw", "--channel", "stdout").returncode == 0
    with farm.start("logs", run, "--raw", "--channel", "stdout") as logs:
        assert logs.stdout is not None
        told = hashlib.file_digest(logs.stdout, "sha256").hexdigest()
    with subprocess.Popen(["sh", "-c", f"echo; seq {NUMBERS}"], stdout=subprocess.PIPE) as again:
        assert again.stdout is not None
        assert told == hashlib.file_digest(again.stdout, "sha256").hexdigest()
    assert worker.memory() - idle < 64 << 20
    farm.tailrace("verify", run)


def _spooled(directory):
    return sum(path.stat().st_size for path in directory.glob("spool.*"))
