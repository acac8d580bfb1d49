"""A Tailrace worker at a real Buildbot master, on both of its wires, beside Buildbot's own workers."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import pytest

from tests.buildbot.master import FarmMaster
from tests.buildbot.real import (
    CANCELLED,
    FAILURE,
    PATIENCE_S,
    SUCCESS,
    TEST_S,
    WIRES,
    Build,
    Wire,
    make_worker,
    start_worker,
    wait_for,
)
from tests.whole.farm import Daemon, run_tailrace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_S)]

# Buildbot's worker says these with a traceback, or in other words; it also lets one line through that is too many.
WORDED_OTHERWISE = {
    "missing executable",
    "too much",
    "upload fails",
    "upload too large",
    "upload directory fails",
    "download fails",
}
# The shell's and its child's last words come in any order.
UNORDERED = {"terminated"}
LONG_LINE = "long line"


@attrs.define
class Farm:
    """One real master with a real worker and one of ours on each wire."""

    directory: Path
    master: FarmMaster
    daemons: dict[str, Daemon]

    def home(self, worker: str) -> Path:
        return self.directory / worker

    def make(self, worker: str, wire: Wire, *options: str, password: str = "sesame") -> Path:
        """A Tailrace worker's directory."""
        secret = self.directory / f"{worker}.secret"
        secret.write_text(password + "\n")
        url = f"{wire}://127.0.0.1:{self.master.ports[wire]}"
        run_tailrace(
            "worker", "create", self.home(worker), "--master", url, "--name", worker, "--secret-file", secret, *options
        )
        return self.home(worker)

    def serve(self, worker: str) -> Daemon:
        """Its process, attached."""
        self.daemons[worker] = daemon = Daemon("worker", "serve", self.home(worker))
        daemon.line("attached ")
        self.master.wait_attached(worker)
        return daemon


@pytest.fixture(scope="module")
def farm(tmp_path_factory) -> Iterator[Farm]:
    directory = tmp_path_factory.mktemp("farm")
    names: dict[str, Wire] = {f"{kind}-{wire}": wire for wire in WIRES for kind in ("real", "ours", "other")}
    farm = Farm(directory, FarmMaster(directory / "m", sys.executable, names), {})
    workers = []
    try:
        for wire in WIRES:
            home = make_worker(farm.home(f"real-{wire}"), wire, farm.master.ports[wire], name=f"real-{wire}")
            workers.append(start_worker(home))
            farm.make(f"ours-{wire}", wire)
            farm.serve(f"ours-{wire}")
        for wire in WIRES:
            farm.master.wait_attached(f"real-{wire}")
        yield farm
    finally:
        for daemon in farm.daemons.values():
            daemon.stop(signal.SIGKILL)
        for worker in workers:
            worker.stop()
        farm.master.stop()


@pytest.fixture(scope="module")
def builds(farm) -> dict[str, Build]:
    """The build of every step there is, by worker; all of them at once."""
    workers = [f"{kind}-{wire}" for wire in WIRES for kind in ("real", "ours")]
    farm.master.build([f"every-{worker}" for worker in workers])
    return {worker: farm.master.wait_build(f"every-{worker}") for worker in workers}


def same_places(text: str, farm: Farm) -> str:
    """Without what differs by place and by chance."""
    text = re.sub(re.escape(str(farm.directory)) + r"/(m/out/)?(real|ours)-(pb|msgpack)", "HOME", text)
    return re.sub(r"every-(real|ours)-(pb|msgpack)", "every", text)


@pytest.mark.parametrize("wire", WIRES)
def test_every_build_ends_as_with_buildbots_own_worker(farm, builds, wire):
    real, ours = builds[f"real-{wire}"], builds[f"ours-{wire}"]
    assert (ours.results, ours.state) == (real.results, real.state)
    assert [step.name for step in ours.steps] == [step.name for step in real.steps]
    got = {step.name: (step.results, same_places(step.state, farm)) for step in ours.steps}
    want = {step.name: (step.results, same_places(step.state, farm)) for step in real.steps}
    del got["worker_preparation"], want["worker_preparation"]
    assert got == want


@pytest.mark.parametrize("wire", WIRES)
def test_the_logs_agree(farm, builds, wire):
    real, ours = builds[f"real-{wire}"], builds[f"ours-{wire}"]
    differ = []
    for step in real.steps:
        if step.name in {*WORDED_OTHERWISE, *UNORDERED, LONG_LINE}:
            continue
        mine = ours.step(step.name)
        if set(mine.logs) != set(step.logs):
            differ.append((step.name, sorted(step.logs), sorted(mine.logs)))
        for log in step.logs:
            for letter in "oe":
                want = same_places(step.text(log, letter), farm)
                got = same_places(mine.text(log, letter), farm)
                if want != got:
                    differ.append((step.name, log, letter, want[:300], got[:300]))
    assert differ == []


@pytest.mark.parametrize("wire", WIRES)
def test_a_line_of_ten_thousand_characters_is_whole(builds, wire):
    assert builds[f"ours-{wire}"].step(LONG_LINE).text().replace("\n", "") == "x" * 10_000


@pytest.mark.parametrize("wire", WIRES)
def test_a_missing_executable_is_said_in_one_line(builds, wire):
    step = builds[f"ours-{wire}"].step("missing executable")
    assert step.results == FAILURE
    [line] = step.text().splitlines()
    assert "/no/such/thing" in line
    assert "Traceback" not in line


def tree(directory: Path) -> dict[str, object]:
    """Names below it, with what they hold."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.mark.parametrize("wire", WIRES)
def test_the_same_files_came(farm, builds, wire):
    got, want = tree(farm.master.out / f"ours-{wire}"), tree(farm.master.out / f"real-{wire}")
    # What Buildbot's worker could not read, or not whole, it leaves on the master all the same.
    for name in ("nothing", "large"):
        want.pop(name, None)
        got.pop(name, None)
    assert got == want
    assert "tree/branch/leaf" in want


@pytest.mark.parametrize("wire", WIRES)
def test_a_build_is_stopped(farm, wire):
    builder = f"sleep-ours-{wire}"
    farm.master.build([builder])
    step_log_says(farm, builder, "begun")
    farm.master.order(f"stop {builder}")
    build = farm.master.wait_build(builder)
    assert build.results == CANCELLED
    assert build.step("sleeps").results == CANCELLED
    assert build.step("sleeps").text() == "begun\n"
    assert farm.master.done_again(f"quick-ours-{wire}").results == SUCCESS


def step_log_says(farm: Farm, builder: str, text: str) -> None:
    """Wait until the running build has logged it: what a user sees live."""
    query = (
        "select c.content from logchunks c join logs l on l.id = c.logid join steps s on s.id = l.stepid "
        "join builds b on b.id = s.buildid join builders r on r.id = b.builderid "
        "where r.name = ? and b.complete_at is null"
    )

    def look() -> bool | None:
        rows = farm.master.rows(query, builder)
        return any(f"o{text}" in bytes(content).decode() for (content,) in rows) or None

    wait_for(look, f"{text!r} in a log of {builder}", farm.master.process)


@pytest.mark.parametrize("wire", WIRES)
def test_a_worker_that_dies_has_its_build_done_again(farm, wire):
    worker = f"other-{wire}"
    farm.make(worker, wire)
    daemon = farm.serve(worker)
    farm.master.build([f"sleep-{worker}"])
    step_log_says(farm, f"sleep-{worker}", "begun")
    daemon.stop(signal.SIGKILL)
    farm.master.wait_build(f"sleep-{worker}")
    again = farm.serve(worker)
    step_log_says(farm, f"sleep-{worker}", "begun")
    farm.master.order(f"stop sleep-{worker}")
    assert farm.master.wait_build(f"sleep-{worker}", 2).results == CANCELLED
    again.stop(signal.SIGTERM)
    farm.master.wait_detached(worker)


def test_a_worker_ends_with_its_masters_leave(farm):
    """SIGHUP: the build that runs goes on to its end, although the worker wants to go."""
    worker = "other-pb"
    if not farm.home(worker).exists():
        farm.make(worker, "pb")
    daemon = farm.serve(worker)
    farm.master.build([f"every-{worker}"])
    farm.master.wait_step(f"every-{worker}", "silent")
    daemon.process.send_signal(signal.SIGHUP)
    build = farm.master.wait_build(f"every-{worker}")
    assert build.step("checked out").results == SUCCESS
    assert daemon.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("wire", WIRES)
def test_the_wrong_password_is_said(farm, wire):
    home = farm.make(f"wrong-{wire}", wire, password="wrong")
    daemon = Daemon("worker", "serve", home)
    try:
        said = wait_for(lambda: "".join(daemon.errors) or _log(home), "the refusal")
        assert "name" in said
        assert "secret" in said
    finally:
        daemon.stop(signal.SIGKILL)


def _log(home: Path) -> str | None:
    path = home / "worker.log"
    text = path.read_text() if path.exists() else ""
    return text if "secret" in text else None


@pytest.mark.parametrize("wire", WIRES)
def test_a_second_worker_of_a_name_is_refused_and_says_so(farm, wire, tmp_path):
    home = farm.home(f"ours-{wire}")
    secret = farm.directory / f"ours-{wire}.secret"
    url = f"{wire}://127.0.0.1:{farm.master.ports[wire]}"
    arguments = ["--master", url, "--name", home.name, "--secret-file", secret]
    run_tailrace("worker", "create", tmp_path / "second", *arguments)
    daemon = Daemon("worker", "serve", tmp_path / "second")
    try:
        log = tmp_path / "second" / "worker.log"
        wait_for(lambda: (log.exists() and "duplicate" in log.read_text()) or None, "the refusal")
    finally:
        daemon.stop(signal.SIGKILL)
    assert farm.master.done_again(f"quick-ours-{wire}").results == SUCCESS


def processes_in(directory: Path) -> list[str]:
    """Those whose current directory is there or below."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cwd").readlink().is_relative_to(directory):
                    found.append((process / "cmdline").read_text())
            except OSError:
                continue
    return [command for command in found if "sleep" in command]


def none_in(directory: Path) -> bool | None:
    return None if processes_in(directory) else True


def test_a_master_comes_again(farm):
    """Last: it takes the master from under everybody, and from under a command."""
    workers = [f"ours-{wire}" for wire in WIRES]
    for worker in workers:
        farm.master.build([f"sleep-{worker}"])
        step_log_says(farm, f"sleep-{worker}", "begun")
        assert processes_in(farm.home(worker))
    farm.master.process.kill()
    for worker in workers:
        wait_for(partial(none_in, farm.home(worker)), f"the end of {worker}'s command")
    farm.master.start()
    for worker in workers:
        farm.master.wait_attached(worker)
        # Its commands have the numbers that those before have had.
        assert farm.master.done_again(f"quick-{worker}").results == SUCCESS
