"""The instructions of the hot loops in Rust (`rust/bench`), counted by callgrind: the same whatever else is going on.

`instructions.json` holds what they were. More than the tolerance is a fault; much less is to be written down, so that
what was won is not lost again unseen. valgrind emulates one and the same processor everywhere; large copies and fills
count one instruction for each byte there (`rep movsb`), so that a copy too many shows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from row import Options, Row

ROOT = Path(__file__).parent.parent
BASELINE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.05
"""A C library, or a processor for which it has another `memcpy`, moves some of them by a few percent."""
WRITE = "./dev bench instructions --write"
MISSING = "valgrind is missing. On Debian: sudo apt-get install valgrind"
COLLECTED = re.compile(rb"Collected : (\d+)")


@attrs.frozen
class Change:
    """A loop whose count is not what is written down. `None`: it is not there."""

    loop: str
    before: int | None
    now: int | None

    def __str__(self) -> str:
        match self.before, self.now:
            case None, int(now):
                return f"{self.loop}: {now:,} instructions, and nothing is written down"
            case int(before), int(now):
                return f"{self.loop}: {before:,} → {now:,} instructions ({now / before - 1:+.1%})"
            case _:
                return f"{self.loop}: there is no such loop any more"


def can_count() -> bool:
    """Whether there is a valgrind."""
    return shutil.which("valgrind") is not None


def build() -> Path:
    """The program with the loops, of the same profile as the extension."""
    command = ["cargo", "build", "--quiet", "--locked", "--release", "--package", "tailrace-bench"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "hot-loops"


def count(program: Path) -> dict[str, int]:
    """Run every loop once under callgrind, as many at a time as there are cores.

    Raises:
        FileNotFoundError: there is no valgrind; the text says what installs it.
    """
    if not can_count():
        raise FileNotFoundError(MISSING)
    loops = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(loops, threads.map(lambda loop: _count(program, loop), loops), strict=True))


def _count(program: Path, loop: str) -> int:
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    collect = ["--collect-atstart=no", "--toggle-collect=counted"]
    run = subprocess.run([*tool, *collect, program, loop], capture_output=True, check=False)
    found = COLLECTED.search(run.stderr)
    if run.returncode or found is None:
        raise RuntimeError(f"{loop}: {run.stderr.decode(errors='replace')}")
    return int(found[1])


def baseline() -> dict[str, int]:
    """What is written down."""
    return dict(json.loads(BASELINE.read_text())) if BASELINE.exists() else {}


def changes(before: Mapping[str, int], now: Mapping[str, int], tolerance: float = TOLERANCE) -> list[Change]:
    """The loops that are not what they were, in either direction; those that are new or gone."""
    names = [*now, *(name for name in before if name not in now)]
    every = [Change(name, before.get(name), now.get(name)) for name in names]
    return [
        change
        for change in every
        if not change.before or change.now is None or abs(change.now / change.before - 1) > tolerance
    ]


def complaint(found: list[Change]) -> str:
    """What a person is told."""
    return "\n".join(["the hot loops are not what bench/instructions.json says:", *(f"  {change}" for change in found)])


def write(counts: Mapping[str, int]) -> None:
    BASELINE.write_text(json.dumps(counts, indent=2) + "\n")


def rows(options: Options) -> Iterator[Row]:
    """Each loop beside what is written down."""
    del options  # a count needs no second round
    try:
        counts = count(build())
    except FileNotFoundError as error:
        print(f"without the instruction counts: {error}", file=sys.stderr)
        return
    before = baseline()
    for loop, now in counts.items():
        known = before.get(loop)
        yield Row(
            job=loop,
            unit="million",
            ours=now / 1e6,
            peer="written down",
            theirs=None if known is None else known / 1e6,
            at_most=None if known is None else 1 + TOLERANCE,
        )
