"""The command line in this process, and a master that is made up."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tailrace.cli.app import main

from .fake_master import serving


@attrs.frozen
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
async def master(tmp_path: Path):
    async with serving(tmp_path / "master") as fake:
        yield fake


@pytest.fixture
def tailrace(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a command line in this process."""
    monkeypatch.delenv("TAILRACE_DIR", raising=False)

    def call(*arguments: str | Path) -> Done:
        code = main([str(argument) for argument in arguments])
        return Done(code, *capfd.readouterr())

    return call
