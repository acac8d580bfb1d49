"""Our standard streams as we find them. Imports next to nothing: it comes first."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys


def announce(line: str) -> None:
    """A daemon's line on standard output. That nobody reads it any more is no reason to stop serving."""
    write_at_once(1, f"{line}\n".encode(errors="backslashreplace"))


def write_at_once(fd: int, data: bytes) -> None:
    """Write what can be written now, and drop the rest: a reader that stalls does not stall a daemon."""
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    with contextlib.suppress(OSError):
        while data and ready.poll(0):
            # A pipe that polls as writable takes this much without blocking.
            data = data[os.write(fd, data[: select.PIPE_BUF]) :]


def ensure_standard_streams() -> None:
    """Fill closed standard descriptors with /dev/null, lest a socket get number 1 and the log go there."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def ensure_printable() -> None:
    """Show what our output's encoding lacks by its number, rather than fail over it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
