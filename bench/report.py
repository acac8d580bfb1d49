"""What a run found, to be kept: as JSON with what it was measured on, as a table for README, as a sentence."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from row import Row, number, verdict

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
KEPT = Path(__file__).with_name("results.json")
"""The run that README shows."""


@attrs.frozen(kw_only=True)
class Report:
    """One run. It says what kind of machine it was, and not which."""

    command: str
    rounds: int
    scale: float
    date: str
    commit: str
    machine: dict[str, object]
    groups: dict[str, list[Row]] = attrs.field(factory=dict)

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.groups.values() for row in rows]

    def to_json(self) -> str:
        groups = {name: [row.to_json() for row in rows] for name, rows in self.groups.items()}
        rest = attrs.asdict(self, filter=attrs.filters.exclude("groups"))
        return json.dumps({**rest, "groups": groups}, indent=1, ensure_ascii=False) + "\n"


def begin(command: str, rounds: int, scale: float) -> Report:
    """The report of a run that begins now, still without a row."""
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return Report(command=command, rounds=rounds, scale=scale, date=now, commit=_commit(), machine=_machine())


def load(path: Path) -> Report:
    """A report that was written by `to_json`."""
    read = json.loads(path.read_text())
    known = {field.name for field in attrs.fields(Row)}
    groups = {
        name: [Row(**{key: value for key, value in row.items() if key in known}) for row in rows]
        for name, rows in read.pop("groups").items()
    }
    return Report(**read, groups=groups)


def markdown(report: Report) -> str:
    """The table, with what it was measured by and on."""
    machine = report.machine
    rounds = "one round" if report.rounds == 1 else f"medians of {report.rounds} rounds"
    lines = [
        f"Measured by `{report.command}` on {report.date.split()[0]}, release build, {rounds}: "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['system']}, Python {machine['python']}.",
        "",
        "| job | Tailrace | beside it | ratio | target | |",
        "|---|---|---|---|---|---|",
    ]
    for row in report.rows:
        beside = "" if row.theirs is None else f"{row.peer}: {number(row.theirs)} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        said = verdict(row).lower()
        lines.append(f"| {row.job} | {number(row.ours)} {row.unit} | {beside} | {ratio} | {row.target} | {said} |")
    return "\n".join(lines) + "\n"


def put_markdown(report: Report, path: Path) -> None:
    """Write the table to `path`: between the markers, if it has them, and nothing else."""
    text = path.read_text() if path.exists() else ""
    table = markdown(report)
    if BEGIN in text:
        marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
        table = marked.sub(lambda _: f"{BEGIN}\n{table}{END}", text)
    path.write_text(table)


def summary(rows: Sequence[Row]) -> str:
    """How many targets were met, and which were not."""
    asked = [row for row in rows if row.is_met is not None]
    missed = [row for row in asked if not row.is_met]
    said = [f"{len(asked) - len(missed)} of {len(asked)} targets met, {len(missed)} missed; {len(rows)} figures."]
    said += [f"  missed: {row.job}: {_figure(row)}, wanted {row.target}" for row in missed]
    return "\n".join(said)


def _figure(row: Row) -> str:
    return f"{number(row.ours)} {row.unit}" if row.ratio is None else f"{row.ratio:.2f} × {row.peer}"


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


def _machine() -> dict[str, object]:
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": names[0] if names else platform.machine(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }
