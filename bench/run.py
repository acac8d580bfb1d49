"""All figures, ours and the peers' in turn in one run."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import commands
import compare
import durable
import files
import inside
import instructions
import reading
import report
import scale
import stream
import swapped
from report import Report
from row import HEADER, TARGET, Options, Row, line

# A group measures when it is iterated: each row is shown as soon as it is there.
GROUPS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "stream": stream.rows,
    "durable": durable.rows,
    "commands": commands.rows,
    "files": files.rows,
    "buildbot": swapped.rows,
    "farm": scale.rows,
    "reading": reading.rows,
    "inside": inside.rows,
    "instructions": instructions.rows,
}
EPILOG = """\
examples:
  ./dev bench                                all groups, five rounds of each: the better part of an hour
  ./dev bench stream --rounds 3              one group
  ./dev bench --quick                        does all of it still run? its numbers mean nothing
  ./dev bench --json a.json                  keep the figures; later: ./dev bench --against a.json
  ./dev bench --compare HEAD~1 --rounds 7    two builds in turn; exit code 1 if a figure is worse by more than 10 %
  ./dev bench instructions                   what callgrind counts, beside bench/instructions.json
  ./dev bench instructions --write           the new counts are meant: write them down

how to read a row: `ours` and `theirs` are medians of runs that took turns, so read the ratio, and never compare the
numbers of two runs. The target is of the ratio, or of our figure where nothing stands beside it. See bench/README.md.
"""


def main() -> int:
    parser = arguments()
    asked = parser.parse_args()
    for group in asked.groups:
        if group not in GROUPS:
            parser.error(f"there is no group {group!r}; there are {', '.join(GROUPS)}")
    if asked.write:
        instructions.write(instructions.count(instructions.build()))
        return 0
    if asked.render:
        report.put_markdown(report.load(asked.render), asked.markdown or parser.error("--render wants --markdown"))
        return 0
    if asked.compare:
        passed = ["--quick"] if asked.quick else []
        return compare.with_revision(asked.compare, asked.groups, asked.rounds, passed, asked.tolerance)
    before = report.load(asked.against) if asked.against else None
    groups = asked.groups or list(before.groups if before else GROUPS)
    found = measure(groups, asked.rounds, 0.1 if asked.quick else 1.0, asked.disk)
    if asked.json:
        asked.json.write_text(found.to_json())
    if asked.markdown:
        report.put_markdown(found, asked.markdown)
    print(f"\n{report.summary(found.rows)}")
    return compare.with_report(before, found, asked.tolerance) if before else 0


def measure(groups: list[str], rounds: int, scale: float, disk: Path) -> Report:
    """Measure the groups, and show each row as soon as it is there."""
    logging.getLogger("tailrace").setLevel(logging.ERROR)  # that workers go is the plan
    named = [] if groups == list(GROUPS) else groups
    options = ["--quick"] * (scale < 1) + ["--rounds", str(rounds)]
    found = report.begin(" ".join(["./dev bench", *named, *options]), rounds, scale)
    print(HEADER)
    for group in groups:
        found.groups[group] = []
        for row in GROUPS[group](Options(rounds=rounds, scale=scale, disk=disk)):
            print(line(row), flush=True)
            found.groups[group].append(row)
    return found


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all of them unless named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument("--rounds", type=int, default=5, help="how often each job runs; the median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="and the table; between its markers, if it has them"
    )
    parser.add_argument("--render", type=Path, metavar="JSON", help="measure nothing: write --markdown from this file")
    parser.add_argument(
        "--compare", metavar="REV", help=f"build REV and measure both in turn; {', '.join(compare.GROUPS)} unless named"
    )
    parser.add_argument("--against", type=Path, metavar="JSON", help="compare with an earlier run's figures")
    parser.add_argument("--tolerance", type=float, default=0.1, help="how much worse is a regression (default 0.1)")
    parser.add_argument("--disk", type=Path, default=TARGET, metavar="DIR", help="what the durable figures write to")
    parser.add_argument("--write", action="store_true", help="write the instruction counts down: the new baseline")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
