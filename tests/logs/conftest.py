from __future__ import annotations

import pytest

from tailrace.logs import open_store


@pytest.fixture
async def store(tmp_path):
    async with open_store(tmp_path) as store:
        yield store
