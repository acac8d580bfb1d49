"""All figures of whole processes, ours and the peers' in turn in one run: `./dev bench [GROUP …] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import commands
import durable
import files
import inside
import instructions
import reading
import scale
import stream
import swapped
from row import HEADER, Options, Row, line

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all of them unless named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument("--rounds", type=int, default=5, help="how often each job runs; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--write", action="store_true", help="write the instruction counts down: the new baseline")
    options = parser.parse_args()
    if options.write:
        instructions.write(instructions.count(instructions.build()))
        return
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"there is no group {group!r}; there are {', '.join(GROUPS)}")
    logging.getLogger("tailrace").setLevel(logging.ERROR)  # that workers go is the plan
    rows: list[Row] = []
    print(HEADER)
    for group in options.groups or GROUPS:
        for row in GROUPS[group](Options(rounds=options.rounds, scale=0.1 if options.quick else 1.0)):
            print(line(row), flush=True)
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps([row.to_json() for row in rows], indent=1))


if __name__ == "__main__":
    main()
