"""The master's disk is full, on a small file system of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time

import pytest

from .farm import PATIENCE_S, Farm

pytestmark = pytest.mark.slow

MEGABYTES = 60
WRITES = f"""
import sys
line = b"%079d\\n"
for number in range({MEGABYTES} * 12_500):
    sys.stdout.buffer.write(line % number)
"""
WRITES_FOR_EVER = """
import sys
while True:
    sys.stdout.buffer.write(b"x" * 79 + b"\\n")
"""


@pytest.fixture
def small(tmp_path):
    """The master's directory, which holds 16 MiB until it is told to hold more."""
    directory = tmp_path / "master"
    directory.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "tailrace-test", directory)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def mount(*arguments):
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"there is no mount: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


def make_room(directory):
    mount("-o", "remount,size=300m", directory)


@pytest.fixture
def full_farm(small, tmp_path):
    farm = Farm(tmp_path)
    try:
        yield farm
    finally:
        farm.close()


def wait_until(holds):
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_full(farm):
    return any("No space left on device" in line for line in farm.master.errors)


def shown(farm):
    return json.loads(farm.tailrace("show", "last", "--json").stdout)


def ended(farm):
    return shown(farm)["state"] != "running"


def test_a_run_waits_for_room_and_then_is_whole(full_farm, small):
    farm = full_farm
    farm.add_worker("w1")
    farm.tailrace("run", "--detach", "--on", "w1", "--", sys.executable, "-c", WRITES)
    wait_until(lambda: is_full(farm))
    time.sleep(2)  # it is tried again, in vain
    assert shown(farm)["state"] == "running"
    make_room(small)
    digest = hashlib.sha256()
    for number in range(MEGABYTES * 12_500):
        digest.update(b"%079d\n" % number)
    logs = farm.start("logs", "last", "--follow", "--raw")
    try:
        received = hashlib.sha256()
        while data := logs.stdout.read(1 << 20):
            received.update(data)
    finally:
        logs.kill()
        logs.communicate()
    assert received.hexdigest() == digest.hexdigest()
    wait_until(lambda: ended(farm))
    run = shown(farm)
    assert (run["state"], run["rc"], run["receipt"]["agrees"]) == ("complete", 0, True)
    assert run["receipt"]["durable"] == "disk"
    complaints = [line for line in farm.master.errors if "No space left on device" in line]
    assert len(complaints) == 1, complaints
    assert str(small) in complaints[0]
    farm.tailrace("verify", "last")


def test_a_run_that_is_stopped_ends_though_the_disk_is_full(full_farm, small):
    farm = full_farm
    farm.add_worker("w1")
    farm.tailrace("run", "--detach", "--on", "w1", "--", sys.executable, "-c", WRITES_FOR_EVER)
    wait_until(lambda: is_full(farm))
    farm.tailrace("stop", "last", "--why", "enough")
    wait_until(lambda: ended(farm))
    run = shown(farm)
    assert (run["state"], run["reason"]) == ("complete", "interrupted")
    assert run["receipt"]["left_out"]
    make_room(small)
    [result] = (small / "runs").iterdir()
    wait_until((result / "result.json").exists)


def test_a_run_may_go_on_with_a_gap_instead(full_farm, small):
    farm = full_farm
    configuration = small / "tailrace.toml"
    configuration.write_text(configuration.read_text().replace("[limits]", 'when_full = "gap"\n[limits]'))
    farm.master.stop()
    farm.master = farm.serve_master()
    farm.add_worker("w1")
    done = farm.tailrace("run", "--on", "w1", "--", sys.executable, "-c", WRITES, check=False)
    assert done.returncode == 0, done.stderr
    run = shown(farm)
    (begin, to, why), *_ = run["receipt"]["left_out"]
    assert 0 < begin < to
    assert "No space left on device" in why
    assert run["receipt"]["agrees"] is False
    make_room(small)
    verified = farm.tailrace("verify", "last", check=False)
    assert verified.returncode != 0
    said = verified.stdout + verified.stderr
    assert b"are missing" in said or b"does not reach its receipt" in said
