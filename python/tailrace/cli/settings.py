"""What every command is told: the options that may stand before or after the command's name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from .failure import USAGE, Failure


@attrs.frozen
class Settings:
    json: bool = False
    directory: Path | None = None

    def master_directory(self) -> Path:
        """The state directory of the master that is meant: `--dir`, else `TAILRACE_DIR`."""
        if self.directory is not None:
            return self.directory
        if named := os.environ.get("TAILRACE_DIR"):
            return Path(named)
        raise Failure("no master is named", "give --dir DIR, or set TAILRACE_DIR", code=USAGE)


Told = Annotated[Settings, Parameter(parse=False)]
"""A command's parameter of this type is filled in by `app`, not from the command line."""
