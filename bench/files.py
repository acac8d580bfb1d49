"""Files: one of a gigabyte, thousands of small ones, and one through a long thin line.

Ours are verified at both ends by BLAKE3, and synced before they count as there. `scp` and `rsync` verify and sync
nothing; `cp` is followed by `sync` of its file, `tar` over ssh by `sync -f`. No login is in any figure. What is copied
is in the page cache, for everyone.
"""

from __future__ import annotations

import filecmp
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import trio

from farm import Counter, connected, start_worker
from line import LINE, LINE_BYTES_S, ROUNDS_MAX, behind_a_line
from openssh import Openssh, openssh
from row import Options, Row, in_turn, median
from stream import MEGABYTE
from tailrace.master import DiskReader, DiskWriter, TreeReader, TreeWriter

GIBIBYTE = 1 << 30
SMALL_FILES = 5000
SMALL_DIRECTORIES = 100
SMALL_BYTES = (100, 8000)
LINE_FILE_BYTES = 128 << 20

Way = Literal["up", "down"]
WAYS: tuple[Way, ...] = ("up", "down")
NAMES: dict[Way, str] = {"up": "upload", "down": "download"}


async def ours(way: Way, source: Path, target: Path, start: Callable[..., subprocess.Popen[bytes]]) -> float:
    """How long our transfer took, from the call to the completion."""
    kind = "Directory" if source.is_dir() else "File"
    if way == "up":
        writer = (TreeWriter if source.is_dir() else DiskWriter)(target.parent, target.name)
        name, args = f"upload{kind}", {"workersrc": str(source), "writer": writer}
    else:
        reader = (TreeReader if source.is_dir() else DiskReader)(source.parent, source.name)
        name, args = f"download{kind}", {"workerdest": str(target), "reader": reader}
    async with connected(start=start) as (conn, _):
        counter = Counter()
        began = time.perf_counter()
        await conn.remoteStartCommand(counter, "bench", "1", name, args)
        await counter.done.wait()
        took = time.perf_counter() - began
        assert counter.rc == 0, counter
    return took


def run(*commands: list[str]) -> float:
    """How long these took, one after another."""
    began = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True)
    return time.perf_counter() - began


def rows(options: Options) -> Iterator[Row]:
    """The figures of files."""
    with tempfile.TemporaryDirectory(prefix="bench-files-") as name, openssh() as peer:
        home = Path(name)
        yield from _large(home, options, peer)
        yield from _small(home, options, peer)
        yield from _line(home, options)


def _large(home: Path, options: Options, peer: Openssh | None) -> Iterator[Row]:
    size = int(GIBIBYTE * options.scale)
    source, target = home / "large", home / "copy"
    _fill(source, size)
    jobs = {f"ours {way}": partial(_ours, way, source, target) for way in WAYS}
    jobs["cp"] = partial(_timed, target, ["cp", source, target], ["sync", target])
    if peer is not None:
        there = peer.there
        jobs["scp up"] = partial(_timed, target, peer.scp(source, there(target)))
        jobs["scp down"] = partial(_timed, target, peer.scp(there(source), target))
        if _has_rsync():
            rsync = ["rsync", "-q", "-e", peer.transport]
            jobs["rsync up"] = partial(_timed, target, [*rsync, source, there(target)])
            jobs["rsync down"] = partial(_timed, target, [*rsync, there(source), target])
    found = in_turn(options.rounds, **jobs)
    speed = {job: size / median(figures) / MEGABYTE for job, figures in found.items()}
    for way in WAYS:
        for whose, at_least in ((f"scp {way}", 2), ("cp", 0.35), (f"rsync {way}", None)):
            if whose in speed:
                yield Row(
                    job=f"{NAMES[way]} of 1 GiB",
                    unit="MB/s",
                    ours=speed[f"ours {way}"],
                    peer="cp + sync" if whose == "cp" else whose.split()[0],
                    theirs=speed[whose],
                    at_least=at_least,
                )
    source.unlink()


def _small(home: Path, options: Options, peer: Openssh | None) -> Iterator[Row]:
    count = int(SMALL_FILES * options.scale)
    trees = home / "trees"
    trees.mkdir()
    # ext4 is slow to make files in a part of the disk where many were removed in the last minutes, for everyone. So
    # each tree has a part of its own, as below the root of the file system, and none is removed before the end.
    subprocess.run(["chattr", "+T", trees], check=False, stderr=subprocess.DEVNULL)
    source, target = trees / "tree", trees / "copies"
    _plant(source, count)
    jobs = {f"ours {way}": partial(_ours, way, source, target) for way in WAYS}
    if peer is not None:
        pack, unpack = ["tar", "-C", str(source), "-cf", "-", "."], ["tar", "-C", str(target), "-xf", "-"]
        for way, here, far in (("up", pack, unpack), ("down", unpack, pack)):
            ends = (shlex.join(here), shlex.join(peer.ssh(*far)))
            pipe = " | ".join(ends if way == "up" else ends[::-1])
            make = ["mkdir", str(target)]
            jobs[f"tar {way}"] = partial(_timed, target, make, ["sh", "-c", pipe], ["sync", "-f", str(target)])
        if _has_rsync():
            rsync = ["rsync", "-q", "-r", "-l", "-p", "-t", "-e", peer.transport]
            sync = ["sync", "-f", str(target)]
            jobs["rsync up"] = partial(_timed, target, [*rsync, f"{source}/", f"{peer.there(target)}/"], sync)
            jobs["rsync down"] = partial(_timed, target, [*rsync, f"{peer.there(source)}/", f"{target}/"], sync)
    found = in_turn(options.rounds, **jobs)
    speed = {job: count / median(figures) for job, figures in found.items()}
    for way in WAYS:
        ours = speed[f"ours {way}"]
        job = f"{NAMES[way]} of {count:,} small files"
        if f"tar {way}" in speed:
            theirs = speed[f"tar {way}"]
            yield Row(job=job, unit="/s", ours=ours, peer="tar over ssh, sync -f", theirs=theirs, at_least=1.5)
        if f"rsync {way}" in speed:
            yield Row(job=job, unit="/s", ours=ours, peer="rsync, sync -f", theirs=speed[f"rsync {way}"])
        if peer is None:
            yield Row(job=job, unit="/s", ours=ours)
    shutil.rmtree(trees)


def _line(home: Path, options: Options) -> Iterator[Row]:
    size = int(LINE_FILE_BYTES * options.scale)
    source, target = home / "line", home / "copy"
    _fill(source, size)

    def through(way: Way) -> float:
        with behind_a_line() as start:
            return _ours(way, source, target, start)

    found = in_turn(min(options.rounds, ROUNDS_MAX), up=lambda: through("up"), down=lambda: through("down"))
    for way in WAYS:
        yield Row(
            job=f"{NAMES[way]} through {LINE}",
            unit="MB/s",
            ours=size / median(found[way]) / MEGABYTE,
            peer="the line",
            theirs=LINE_BYTES_S / MEGABYTE,
            at_least=0.9,
        )


def _ours(way: Way, source: Path, target: Path, start: Callable[..., subprocess.Popen[bytes]] = start_worker) -> float:
    _clear(target)
    took = trio.run(ours, way, source, target, start)
    _check(source, target)
    return took


def _timed(target: Path, *commands: list[str]) -> float:
    _clear(target)
    return run(*commands)


def _clear(target: Path) -> None:
    """What a job before left is away, and on disk: it is not the next one's to write."""
    if target.is_dir():
        target.rename(target.with_name(f"{target.name}-{time.monotonic_ns()}"))
    else:
        target.unlink(missing_ok=True)
    os.sync()


def _check(source: Path, target: Path) -> None:
    if source.is_dir():
        for directory, _, names in os.walk(source):
            there = target / Path(directory).relative_to(source)
            _, *wrong = filecmp.cmpfiles(directory, there, names, shallow=False)
            assert wrong == [[], []], wrong
    else:
        assert filecmp.cmp(source, target, shallow=False)


def _fill(path: Path, size: int) -> None:
    """Nobody can compress it."""
    with path.open("wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(os.urandom(min(left, 1 << 20)))


def _plant(root: Path, count: int) -> None:
    sizes = random.Random(1)
    for number in range(count):
        directory = root / f"d{number % SMALL_DIRECTORIES:03}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:05}").write_bytes(os.urandom(sizes.randint(*SMALL_BYTES)))


def _has_rsync() -> bool:
    if shutil.which("rsync") is None:
        print("without rsync, which is missing: sudo apt-get install rsync", file=sys.stderr)
        return False
    return True
