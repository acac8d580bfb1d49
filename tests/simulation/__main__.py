"""`./dev simulate`: seeds, one after another, and what becomes of each."""

from __future__ import annotations

import argparse
import logging
import sys
import time

import trio

from .mutations import MUTATIONS
from .story import play


def main() -> int:
    """0: every invariant held. 1: one did not; how to see it again is printed."""
    options = _options()
    logging.basicConfig(level=logging.INFO if options.trace else logging.CRITICAL, handlers=[_Traced()], force=True)
    mutation = MUTATIONS[options.break_] if options.break_ else None
    begun, sessions, connections, failed = time.monotonic(), 0, 0, 0
    for seed in range(options.from_, options.from_ + options.seeds):
        try:
            report = play(seed, mutation=mutation)
        except Exception as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            print(f"    again: {_again(seed, options.break_)}", flush=True)
        else:
            sessions += report.sessions
            connections += report.connections
            if options.trace:
                print(report)
    took = time.monotonic() - begun
    print(f"{options.seeds} seeds, {connections} connections, {sessions} sessions in {took:.0f} s: {failed} failed")
    return 1 if failed else 0


def _again(seed: int, mutation: str | None) -> str:
    extra = f" --break {mutation}" if mutation else ""
    return f"./dev simulate --from {seed} --seeds 1 --trace{extra}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev simulate", description="The protocol in a simulated world.")
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many; 100")
    parser.add_argument("--from", type=int, default=0, metavar="SEED", dest="from_", help="the first one; 0")
    parser.add_argument("--trace", action="store_true", help="say what happens, in virtual time")
    parser.add_argument("--break", choices=sorted(MUTATIONS), dest="break_", help="simulate a build that is broken")
    return parser.parse_args()


class _Traced(logging.StreamHandler):
    """Log lines with the virtual time."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def format(self, record: logging.LogRecord) -> str:
        try:
            now = f"{trio.current_time():9.3f}"
        except RuntimeError:
            now = "         "
        return f"{now}  {record.name}: {record.getMessage()}"


if __name__ == "__main__":
    sys.exit(main())
