"""All whole-process figures, ours and the limit's in one run, alternating: `./dev bench [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent))

import stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    scale = 0.1 if options.quick else 1.0
    rows = [
        pair("blocks of 80-byte lines", "block", int(12_500_000 * scale), options.rounds),
        pair("one write a line", "line", int(2_500_000 * scale), options.rounds),
        pair("one byte a write", "byte", int(12_500 * scale), options.rounds),
        alone("`true`, one after another", lambda: trio.run(stream.commands, int(500 * scale)), options.rounds),
    ]
    print(f"{'job':28} {'ours':>14} {'bare pipeline':>14} {'ratio':>6} {'CPU s/GB':>9} {'bare':>6}")
    for row in rows:
        print(
            f"{row['job']:28} {row['ours']:>9.0f} {row['unit']:<4}",
            f"{row['bare']:>9.0f} {row['unit']:<4} {row['ratio']:>6.2f} {row['cpu']:>9.2f} {row['bare_cpu']:>6.2f}"
            if "bare" in row
            else "",
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def pair(job: str, mode: str, lines: int, rounds: int) -> dict:
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(trio.run(stream.bare, mode, lines))
        ours.append(trio.run(stream.ours, mode, lines))
    speed = statistics.median(figure.megabytes_s for figure in ours)
    limit = statistics.median(figure.megabytes_s for figure in bare)
    return {
        "job": job,
        "unit": "MB/s",
        "ours": speed,
        "bare": limit,
        "ratio": speed / limit,
        "cpu": statistics.median(figure.cpu_s_per_gb for figure in ours),
        "bare_cpu": statistics.median(figure.cpu_s_per_gb for figure in bare),
    }


def alone(job: str, measure: Callable[[], float], rounds: int) -> dict:
    return {"job": job, "unit": "/s", "ours": statistics.median(measure() for _ in range(rounds))}


if __name__ == "__main__":
    main()
