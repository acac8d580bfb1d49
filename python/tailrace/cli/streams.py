"""Our standard streams as we find them. Imports nothing: it comes before everything else."""

from __future__ import annotations

import os


def ensure_standard_streams() -> None:
    """Fill closed standard descriptors with /dev/null, lest a socket get number 1 and the log go there."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
