"""Farms for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from .farm import Farm


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory):
    """A master and the workers w1 and w2, for all tests that leave them as they were."""
    farm = Farm(tmp_path_factory.mktemp("farm"))
    try:
        farm.add_worker("w1")
        farm.add_worker("w2")
        yield farm
    finally:
        farm.close()


@pytest.fixture
def own_farm(tmp_path: Path):
    """A master of one's own, without workers."""
    farm = Farm(tmp_path)
    try:
        yield farm
    finally:
        farm.close()
