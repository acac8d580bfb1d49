"""Campaigns against a log and a file: the network is cut, processes die. `./dev soak` has the full figures."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from ..chaos.process import ProxyProcess  # noqa: TID252 - a program of the tests'
from .farm import Daemon, Farm

MIB = 1 << 20
LIMITS = "\n[limits]\nping_interval_s = 1\nping_timeout_s = 3\n"
# Lines of a number and a filler, at about so many bytes a second: what is cut must still be under way.
CHILD = """
import hashlib, os, sys, time
size, speed, digest = int(sys.argv[1]), float(sys.argv[2]), hashlib.sha256()
block, sent, began = b"%s\\n" % (b"x" * 1000), 0, time.monotonic()
while sent < size:
    data = b"".join(b"%016d %s" % (sent + at, block) for at in range(64))
    digest.update(data)
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
    sent += len(data)
    time.sleep(max(0, began + sent / speed - time.monotonic()))
open(sys.argv[3], "w").write(digest.hexdigest())
"""


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


class Campaign:
    """A farm with one worker, which may reach its master through a proxy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.farm = Farm(directory, f"tailrace://127.0.0.1:{free_port()}")
        self.proxy: ProxyProcess | None = None

    def begin(self, *, proxied: bool) -> None:
        self.farm.master.stop()
        self._limit(self.farm.state)
        self.farm.master = self.farm.serve_master()
        if proxied:
            self.proxy = ProxyProcess(self.farm.urls[0].partition("://")[2])
        url = f"tailrace://{self.proxy.address}" if self.proxy else self.farm.urls[0]
        self.home = self.directory / "w1"
        secret = self.farm.add_account("w1")
        self.farm.tailrace("worker", "create", self.home, "--master", url, "--name", "w1", "--secret-file", secret)
        self._limit(self.home)
        self.worker = self.serve_worker()
        self.worker.line("attached ")
        self.farm.tailrace("run", "--", "true")
        self.idle = self.memory("VmRSS")

    @property
    def master(self) -> Daemon:
        return self.farm.master

    def serve_worker(self) -> Daemon:
        self.worker = Daemon("worker", "serve", self.home)
        self.farm.daemons.append(self.worker)
        return self.worker

    def restart(self, *, master: bool, worker: bool) -> None:
        """Kill these, and start others in their place."""
        for daemon in [self.master] * master + [self.worker] * worker:
            daemon.process.kill()
        if master:
            self.master.stop(signal.SIGKILL)
            self.farm.master = self.farm.serve_master()
        if worker:
            self.worker.stop(signal.SIGKILL)
            self.serve_worker()

    def start_log(self, size: int, speed: float) -> str:
        command = [sys.executable, "-c", CHILD, str(size), str(speed), str(self.directory / "digest")]
        return self.farm.tailrace("run", "--detach", "--on", "w1", "--", *command).stdout.decode().strip()

    def check_log(self, run: str) -> None:
        """It is what the child wrote, and its receipt says so."""
        follower = self.farm.start("logs", run, "-f", "--raw", "--channel", "stdout")
        assert follower.stdout is not None
        got = hashlib.file_digest(follower.stdout, "sha256").hexdigest()
        assert follower.wait(60) == 0
        follower.stdout.close()
        follower.stderr.close()  # type: ignore[union-attr]
        assert got == (self.directory / "digest").read_text()
        assert self.farm.tailrace("verify", run).stdout.decode().rstrip().endswith("ok")

    def memory(self, key: str) -> dict[str, int]:
        return {"master": self.master.memory(key), "worker": self.worker.memory(key)}

    def check_memory(self, grows_by: int = 64 * MIB) -> None:
        for name, peak in self.memory("VmHWM").items():
            assert peak - self.idle[name] < grows_by, (name, peak, self.idle[name])

    def ended(self, run: str) -> bool:
        return b'"state": "running"' not in self.farm.tailrace("show", run, "--json").stdout

    def close(self) -> None:
        self.farm.close()
        if self.proxy is not None:
            self.proxy.close()

    def _limit(self, directory: Path) -> None:
        settings = directory / "tailrace.toml"
        text = settings.read_text()
        settings.write_text((text if "\n[limits]\n" in text else text + "\n[limits]\n").replace("\n[limits]\n", LIMITS))


def cut_on_and_on(campaign: Campaign, cuts: int, apart: int, done: threading.Event) -> int:
    """Cut after about so many bytes each, in all the ways in which networks do it. How often it was."""
    proxy, chance, made = campaign.proxy, random.Random(7), 0
    assert proxy is not None
    while made < cuts and not done.is_set():
        before = proxy.count()
        target = before["up"] + chance.randrange(apart // 2, apart * 3 // 2)
        if chance.random() < 0.9:
            proxy.do(f"cut {chance.choice(['rst', 'fin'])} up +{target - before['up']}")
        else:
            # Half open, or a black hole: each side has to find out by itself.
            proxy.do(f"swallow {chance.choice(['up', 'down', 'both'])}")
            time.sleep(4.5)
            proxy.do("pass both")
        while proxy.count()["accepted"] == before["accepted"] and not done.wait(0.02):
            pass
        made += 1
    return made


def cut_a_log(directory: Path, size: int, cuts: int, speed: float) -> None:
    campaign = Campaign(directory)
    try:
        campaign.begin(proxied=True)
        run = campaign.start_log(size, speed)
        made = cut_on_and_on(campaign, cuts, size // (cuts + 2), threading.Event())
        assert made == cuts
        campaign.check_log(run)
        campaign.check_memory()
    finally:
        campaign.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_log_whose_network_is_cut(tmp_path):
    cut_a_log(tmp_path, 100 * MIB, 40, 60e6)


@pytest.mark.soak
def test_a_log_whose_network_is_cut_a_thousand_times(tmp_path):
    cut_a_log(tmp_path, 10_000 * MIB, 1000, 200e6)


def kill_and_kill(directory: Path, size: int, kills: int, speed: float) -> None:
    campaign, chance = Campaign(directory), random.Random(11)
    try:
        campaign.begin(proxied=False)
        run = campaign.start_log(size, speed)
        for _ in range(kills):
            time.sleep(chance.uniform(0, 2 * size / speed / kills))
            which = chance.choice(["master", "worker", "both"])
            campaign.restart(master=which != "worker", worker=which != "master")
        campaign.check_log(run)
        campaign.check_memory()
    finally:
        campaign.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_log_whose_master_and_worker_are_killed(tmp_path):
    kill_and_kill(tmp_path, 200 * MIB, 20, 20e6)


@pytest.mark.soak
def test_a_log_whose_master_and_worker_are_killed_a_hundred_times(tmp_path):
    kill_and_kill(tmp_path, 1000 * MIB, 100, 20e6)


def cut_transfers(directory: Path, size: int, cuts: int, *, grows_by: int) -> None:
    """`grows_by`: what either daemon may need beyond its idle memory."""
    campaign = Campaign(directory)
    source, back = directory / "source", directory / "back"
    with source.open("wb") as file:
        for _ in range(size // MIB):
            file.write(random.randbytes(MIB))
    try:
        campaign.begin(proxied=True)
        proxy = campaign.proxy
        assert proxy is not None
        for way, command in (
            ("down", ["put", str(source), "w1:there"]),
            ("up", ["get", "w1:there", str(back)]),
        ):
            before = proxy.count()
            client = campaign.farm.start(*command)
            for number in range(cuts):
                accepted = proxy.count()["accepted"]
                at = before[way] + (number + 1) * size // (cuts + 1)
                proxy.do(f"cut rst {way} {at}")
                while proxy.count()["accepted"] == accepted:
                    assert client.poll() is None, client.communicate()
                    time.sleep(0.01)
            _, errors = client.communicate(timeout=120)
            assert client.returncode == 0, errors
            went = proxy.count()[way] - before[way]
            assert went <= size * 1.05, (way, went / size)
        assert subprocess.run(["cmp", source, campaign.home / "there"], check=False).returncode == 0
        assert subprocess.run(["cmp", source, back], check=False).returncode == 0
        campaign.check_memory(grows_by)
    finally:
        campaign.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_files_whose_network_is_cut(tmp_path):
    cut_transfers(tmp_path, 250 * MIB, 5, grows_by=64 * MIB)


@pytest.mark.soak
def test_large_files_whose_network_is_cut(tmp_path):
    # The master: 78 MiB were measured after forty cuts, and it is not known yet of what.
    cut_transfers(tmp_path, 1000 * MIB, 20, grows_by=128 * MIB)
