"""What a child writes while its master is away goes to the disk; and what happens when that is full, or refuses."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tailrace.worker.supervisor import SupervisorLost
from tailrace.worker.supervisors import open_supervisors

from .supervised import TIMEOUT_S, Reader, shell

MIB = 1 << 20


def spooled(directory):
    """Bytes of spool files in a supervisor's directory."""
    return sum(path.stat().st_size for path in directory.glob("spool.*"))


async def wait_until(condition):
    with trio.fail_after(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - of other processes
            await trio.sleep(0.01)


async def read_all(supervised, *, digest=None):
    reader = Reader(supervised, digest=digest)
    with trio.fail_after(2 * TIMEOUT_S):
        await reader.run()
    return reader


async def test_a_child_does_not_wait_for_a_master_that_is_away(nursery, tmp_path):
    want = hashlib.blake2b()
    with (tmp_path / "data").open("wb") as file:
        for _ in range(50):
            data = os.urandom(MIB)
            file.write(data)
            want.update(data)
    async with open_supervisors(tmp_path / "s", ring_bytes=4 * MIB) as supervisors:
        supervised = await supervisors.start("1")
        supervised.spooling(True)
        exit_ = await supervised.spawn(shell("cat data; echo end >&2", tmp_path))
        assert exit_.rc == 0
        assert 44 * MIB < spooled(supervised.directory) < 52 * MIB
        digest = hashlib.blake2b()
        reader = await read_all(supervised, digest=digest)
        assert reader.agrees()
        assert digest.digest() == want.digest()
        assert reader.text("stderr") == "end\n"
        assert reader.order[-1] == "header"
        assert reader.gaps == []
        await wait_until(lambda: not supervised.directory.exists())


async def test_with_a_master_that_is_there_the_child_waits(nursery, tmp_path):
    async with open_supervisors(tmp_path / "s", ring_bytes=4 * MIB) as supervisors:
        supervised = await supervisors.start("1")
        nursery.start_soon(supervised.spawn, shell("seq 3000000", tmp_path))
        await wait_until(lambda: supervised.journal.end > 3 * MIB)
        supervised.spooling(True)
        await wait_until(lambda: supervised.ends_itself and spooled(supervised.directory) > 15 * MIB)
        supervised.spooling(False)
        # Nothing more goes to the disk, and what is there comes back.
        reader = await read_all(supervised)
        assert reader.text("stdout") == "".join(f"{number}\n" for number in range(1, 3_000_001))
        assert reader.agrees()
        nursery.cancel_scope.cancel()


async def test_a_full_spool_makes_the_child_wait(nursery, tmp_path):
    async with open_supervisors(tmp_path / "s", ring_bytes=4 * MIB, spool_bytes_max=8 * MIB) as supervisors:
        supervised = await supervisors.start("1")
        supervised.spooling(True)
        nursery.start_soon(supervised.spawn, shell("seq 3000000", tmp_path))
        await wait_until(lambda: spooled(supervised.directory) > 7 * MIB)
        # Behind the end of the journal the directory is gone.
        assert spooled(supervised.directory) <= 8 * MIB
        reader = await read_all(supervised)
        assert reader.text("stdout") == "".join(f"{number}\n" for number in range(1, 3_000_001))
        assert reader.gaps == []
        assert reader.agrees()


async def test_or_leaves_a_gap(tmp_path):
    async with open_supervisors(
        tmp_path / "s", ring_bytes=4 * MIB, spool_bytes_max=8 * MIB, when_full="gap"
    ) as supervisors:
        supervised = await supervisors.start("1")
        supervised.spooling(True)
        exit_ = await supervised.spawn(shell("seq 3000000", tmp_path))
        assert exit_.rc == 0
        assert spooled(supervised.directory) <= 8 * MIB
        reader = await read_all(supervised)
        _check_gaps(reader, "the worker's spool is full")


def _check_gaps(reader, why):
    written = "".join(f"{number}\n" for number in range(1, 3_000_001)).encode()
    ((channel, missing, lines, reason),) = reader.gaps
    delivered = bytes(reader.channels["stdout"])
    assert (channel, len(delivered) + missing, reason) == ("stdout", len(written), why)
    assert written.startswith(delivered)
    assert lines + delivered.count(b"\n") == 3_000_000
    assert reader.agrees()
    assert reader.receipt.channels["stdout"][2] == missing


@pytest.mark.parametrize("spooling", [False, True])
async def test_a_supervisor_killed_anywhere_leaves_a_journal_that_ends_truly(tmp_path, spooling):
    data = b"".join(os.urandom(999) + b"\n" for _ in range(30_000))
    (tmp_path / "data").write_bytes(data)
    async with open_supervisors(tmp_path / "s", ring_bytes=4 * MIB) as supervisors:
        for number in range(10):
            supervised = await supervisors.start(str(number))
            supervised.spooling(spooling)
            reader = Reader(supervised)
            with trio.fail_after(TIMEOUT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_lost, supervised, shell("cat data data data; exec sleep 1000", tmp_path))
                    if not spooling:
                        nursery.start_soon(reader.run)
                    await trio.sleep(random.uniform(0, 0.1))
                    os.kill(supervised.pid, signal.SIGKILL)
                if spooling:
                    await reader.run()
            assert reader.agrees()
            assert reader.failure is not None
            assert reader.failure[0] == "SupervisorLost"
            assert (data * 3).startswith(bytes(reader.channels.get("stdout", b"")))


async def _lost(supervised, spec):
    with suppress(SupervisorLost):
        await supervised.spawn(spec)


SMALL_DISK = """
import hashlib, json, sys, trio
from pathlib import Path
from tailrace.worker.supervisors import open_supervisors
from tests.worker.supervised import Reader, shell

async def main(directory, when_full):
    opened = open_supervisors(directory, ring_bytes=4 << 20, when_full=when_full)
    async with opened as supervisors, trio.open_nursery() as nursery:
        supervised = await supervisors.start("1")
        supervised.spooling(True)
        nursery.start_soon(supervised.spawn, shell("seq 3000000; touch done", directory.parent))
        done = directory.parent / "done"
        with trio.move_on_after(60 if when_full == "gap" else 2):
            while not done.exists():
                await trio.sleep(0.01)
        was_done = done.exists()
        reader = Reader(supervised)
        with trio.fail_after(60):
            await reader.run()
        stdout = bytes(reader.channels["stdout"])
        print(json.dumps([was_done, reader.gaps, reader.agrees(), len(stdout), hashlib.sha256(stdout).hexdigest()]))

trio.run(main, Path(sys.argv[1]), sys.argv[2])
"""

SMALL_FILES = 'ulimit -f 12288; "$@"'
SMALL_DISKS = 'mount -t tmpfs -o size=12m tmpfs "$0" && "$@"'


def _can_mount():
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("when_full", ["wait", "gap"])
@pytest.mark.parametrize("limit", ["disk", "file"])
def test_a_disk_that_refuses(tmp_path, when_full, limit):
    """A real one of 12 MiB, where one may mount; and files that may not grow beyond 6 MiB."""
    if limit == "disk" and not _can_mount():
        pytest.skip("this user may not mount a tmpfs")
    root = Path(__file__).parents[2]
    limited = ["unshare", "-rm", "sh", "-c", SMALL_DISKS] if limit == "disk" else ["sh", "-c", SMALL_FILES]
    run = [sys.executable, "-c", SMALL_DISK, str(tmp_path / "s"), when_full]
    environ = {**os.environ, "PYTHONPATH": f"{root}:{root}/python"}
    done = subprocess.run([*limited, str(tmp_path), *run], capture_output=True, env=environ, timeout=150, check=False)
    assert done.returncode == 0, done.stderr.decode()
    was_done, gaps, agrees, length, digest = json.loads(done.stdout)
    written = "".join(f"{number}\n" for number in range(1, 3_000_001)).encode()
    missing = sum(gap[1] for gap in gaps)
    assert agrees
    assert length + missing == len(written)
    assert was_done == (when_full == "gap") == (missing > 0)
    if gaps:
        reason = "No space left on device" if limit == "disk" else "File too large"
        assert [gap[3] for gap in gaps] == [f"the worker's spool: {reason}"]
    assert hashlib.sha256(written[:length]).hexdigest() == digest
