"""`python -m tailrace`, and the `tailrace` command."""

from __future__ import annotations

import sys

from tailrace.cli.streams import ensure_printable, ensure_standard_streams


def main() -> int:
    """The command line of this process; returns its exit code."""
    ensure_standard_streams()
    ensure_printable()
    arguments = sys.argv[1:]
    if arguments[:2] == ["worker", "serve"] and not {"--help", "-h", "--json", "--dir"} & set(arguments):
        # A worker may be a small machine: its daemon loads nothing of what the other commands need.
        from tailrace.cli.worker_serve import main as serve

        return serve(arguments[2:])
    from tailrace.cli.app import main as run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
