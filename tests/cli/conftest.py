"""A master that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from .fake_master import serving


@pytest.fixture
async def master(tmp_path: Path):
    async with serving(tmp_path / "master") as fake:
        yield fake
