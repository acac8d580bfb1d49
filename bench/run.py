"""All whole-process figures, alternating in one run: `./dev bench [--only native|buildbot] [--quick] [--json FILE]`."""

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
import swapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only", choices=("native", "buildbot"), help="our own wire, or Buildbot's")
    options = parser.parse_args()
    scale = 0.1 if options.quick else 1.0
    native = measure_native(scale, options.rounds) if options.only != "buildbot" else []
    buildbot = measure_buildbot(int(2_000_000 * scale), options.rounds) if options.only != "native" else []
    if options.json:
        options.json.write_text(json.dumps([*native, *buildbot], indent=1))


def measure_native(scale: float, rounds: int) -> list[dict]:
    rows = [
        pair("blocks of 80-byte lines", "block", int(12_500_000 * scale), rounds),
        pair("one write a line", "line", int(2_500_000 * scale), rounds),
        pair("one byte a write", "byte", int(12_500 * scale), rounds),
        alone("`true`, one after another", lambda: trio.run(stream.commands, int(500 * scale)), rounds),
    ]
    print(f"{'job':28} {'ours':>14} {'bare pipeline':>14} {'ratio':>6} {'CPU s/GB':>9} {'bare':>6}")
    for row in rows:
        print(
            f"{row['job']:28} {row['ours']:>9.0f} {row['unit']:<4}",
            f"{row['bare']:>9.0f} {row['unit']:<4} {row['ratio']:>6.2f} {row['cpu']:>9.2f} {row['bare_cpu']:>6.2f}"
            if "bare" in row
            else "",
        )
    return rows


def measure_buildbot(lines: int, rounds: int) -> list[dict]:
    """Each end ours or Buildbot's own; every round has all four pairs of both wires."""
    pairs = [
        ("Buildbot's worker, our master", swapped.at_ours, False, lines),
        ("Buildbot's worker and master", swapped.at_theirs, False, lines),
        ("our worker, Buildbot's master", swapped.at_theirs, True, lines),
        # At ten times the speed it needs more to be measured.
        ("our worker and master", swapped.at_ours, True, 2 * lines),
    ]
    figures: dict[tuple[str, str], list[stream.Figure]] = {}
    for _ in range(rounds):
        for wire in swapped.WIRES:
            for job, measure, is_ours, count in pairs:
                figures.setdefault((wire, job), []).append(measure(wire, count, ours=is_ours))
    rows = [
        {
            "job": f"{wire}: {job}",
            "unit": "MB/s",
            "ours": statistics.median(figure.megabytes_s for figure in found),
            "cpu": statistics.median(figure.cpu_s_per_gb for figure in found),
            "busy": statistics.median(figure.busy for figure in found),
        }
        for (wire, job), found in figures.items()
    ]
    print(f"{'job':42} {'speed':>10} {'master CPU s/GB':>17} {'its core':>9}")
    for row in rows:
        print(f"{row['job']:42} {row['ours']:>5.0f} {row['unit']} {row['cpu']:>17.2f} {row['busy']:>9.0%}")
    return rows


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
