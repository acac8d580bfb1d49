from __future__ import annotations

import httpx
import pytest
import trio

from tailrace.master import config
from tailrace.web import make_app
from tailrace.web.server import SOCKET_FILE, open_socket, serve

from ..master.farm import open_farm  # noqa: TID252 - the same workers as there


@pytest.fixture
async def farm(tmp_path):
    """A master with its API on a socket in `tmp_path`."""
    config.create_master(tmp_path, ["tailrace://127.0.0.1:0"])
    stopping = trio.Event()
    async with open_farm(tmp_path) as farm, trio.open_nursery() as nursery:
        with open_socket(tmp_path) as listening:
            await nursery.start(serve, make_app(farm.master, tmp_path), listening, stopping)
            yield farm
            nursery.cancel_scope.cancel()


@pytest.fixture
async def api(farm, tmp_path):
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / SOCKET_FILE))
    async with httpx.AsyncClient(transport=transport, base_url="http://master", timeout=None) as api:
        yield api
