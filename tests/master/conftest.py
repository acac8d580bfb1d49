from __future__ import annotations

import pytest

from .farm import open_farm


@pytest.fixture
async def farm():
    async with open_farm() as farm:
        yield farm
