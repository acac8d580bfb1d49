"""Our standard streams as we find them. Imports nothing: it comes before everything else."""

from __future__ import annotations

import io
import os
import sys


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
