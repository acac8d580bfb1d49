"""Two builds in one job: `./dev bench --compare REV` measures REV and this checkout in turn, by the same scripts.

What counts is the median of the ratios new / old, each of two runs that followed one another: a machine that changes
its speed meanwhile changes both. `--against FILE.json` compares with an earlier run instead, by the ratios to the peers
where a row has one, as the times of two runs have little to do with each other.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

import report
from report import ROOT, Report
from row import TARGET, Row, number

GROUPS = ("stream", "inside")
BIN = Path(sys.executable).parent
HEADER = f"{'job':60} {'old':>10} {'new':>10} {'':5} {'new/old':>8}"


@attrs.frozen
class Pair:
    """A figure of both builds."""

    row: Row
    old: float
    new: float
    ratio: float

    def worse_by(self, tolerance: float) -> bool:
        return self.ratio > 1 + tolerance if self.row.less_is_better else self.ratio < 1 - tolerance

    def __str__(self) -> str:
        of = f"{self.row.job} / {self.row.peer}" if self.row.peer else self.row.job
        return f"{of:60} {number(self.old):>10} {number(self.new):>10} {self.row.unit:5} {self.ratio:8.2f}"


def with_revision(revision: str, groups: Sequence[str], rounds: int, options: Sequence[str], tolerance: float) -> int:
    """Measure both, print the table, and say what is worse. The exit code: 1 if something is."""
    sides = {"old": build(revision), "new": ROOT / "python"}
    runs: dict[str, list[Report]] = {side: [] for side in sides}
    for number_ in range(rounds):
        # Who is first has the disk and the caches of who was last: they take turns in that too.
        for side in sorted(sides, reverse=number_ % 2 == 0):
            print(f"round {number_ + 1} of {rounds}: {side}", file=sys.stderr, flush=True)
            runs[side].append(measure(sides[side], groups or GROUPS, options))
    return tell(list(pairs(runs["old"], runs["new"])), tolerance)


def with_report(old: Report, new: Report, tolerance: float) -> int:
    """The same with a run that was written down."""
    figures = _figures(old)
    found = []
    for key, row in _figures(new).items():
        if (before := figures.get(key)) is None:
            continue
        one, other = (before.ratio, row.ratio) if before.ratio and row.ratio else (before.ours, row.ours)
        found.append(Pair(row, one, other, other / one))
    return tell(found, tolerance)


def tell(found: Sequence[Pair], tolerance: float) -> int:
    worse = [pair for pair in found if pair.worse_by(tolerance)]
    print(HEADER, *found, sep="\n")
    print(f"\n{len(worse)} of {len(found)} figures are worse by more than {tolerance:.0%}.")
    for pair in worse:
        print(f"  worse: {pair.row.job}: {number(pair.old)} → {number(pair.new)} {pair.row.unit}, × {pair.ratio:.2f}")
    return 1 if worse else 0


def pairs(old: Sequence[Report], new: Sequence[Report]) -> Iterator[Pair]:
    """What both sides have in every round."""
    before, after = [_figures(run) for run in old], [_figures(run) for run in new]
    for key, row in after[0].items():
        if all(key in run for run in (*before, *after)):
            one, other = [run[key].ours for run in before], [run[key].ours for run in after]
            ratio = statistics.median(b / a for a, b in zip(one, other, strict=True))
            yield Pair(row, statistics.median(one), statistics.median(other), ratio)


def _figures(run: Report) -> Mapping[tuple[str, str, str], Row]:
    """One figure of ours is one, however many peers stand beside it."""
    found: dict[tuple[str, str, str], Row] = {}
    seen = set()
    for group, rows in run.groups.items():
        for row in rows:
            if (group, row.job, row.ours) not in seen and row.ours:
                seen.add((group, row.job, row.ours))
                found[group, row.job, row.peer] = row
    return found


def measure(package: Path, groups: Sequence[str], options: Sequence[str]) -> Report:
    """One round with the `tailrace` that lies in `package`."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.json"
        command = [
            sys.executable,
            str(ROOT / "bench" / "run.py"),
            *groups,
            "--rounds",
            "1",
            "--json",
            str(results),
            *options,
        ]
        environment = {**os.environ, "PYTHONPATH": str(package)}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return report.load(results)


def build(revision: str) -> Path:
    """Check the revision out, build its wheel as ours was built, and unpack that. Once for each commit."""
    commit = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
    home = TARGET / "compare" / commit[:12]
    package = home / "package"
    if not package.exists():
        print(f"building {revision} ({commit[:12]}), once; some minutes", file=sys.stderr, flush=True)
        source, wheels = home / "source", home / "wheels"
        source.mkdir(parents=True, exist_ok=True)
        # Cargo takes two checkouts in one target directory for the same crates, and goes by times: each revision's
        # sources are new here, and ours are not in it. What they depend on is built once.
        subprocess.run(["tar", "-x", "-m", "-C", source], input=_git("archive", commit), check=True)
        environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "compare" / "target")}
        command = [
            BIN / "maturin",
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--auditwheel",
            "skip",
            "--out",
            wheels,
        ]
        subprocess.run(command, cwd=source, env=environment, check=True)
        [wheel] = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(home / "unpacked")
        (home / "unpacked").rename(package)
    return package


def _git(*arguments: str) -> bytes:
    told = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if told.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {told.stderr.decode().strip() or 'there is no such revision'}")
    return told.stdout
