"""A directory's master from its start to a signal."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial

import httpx
import pytest
import trio

from tailrace.errors import StoreError
from tailrace.link import dial
from tailrace.logs import open_store
from tailrace.master import config
from tailrace.web import serve_master
from tailrace.web.server import SOCKET_FILE

from ..master.farm import ScriptedWorker  # noqa: TID252 - the same workers as there


class Announcements:
    """What a serving master prints."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ready = trio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line == "ready":
            self.ready.set()

    @property
    def endpoint(self) -> str:
        return self.lines[0].removeprefix("listening ")


def client(directory) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(directory / SOCKET_FILE))
    return httpx.AsyncClient(transport=transport, base_url="http://master", timeout=None)


@pytest.fixture
def directory(tmp_path):
    config.create_master(tmp_path, ["tailrace://127.0.0.1:0", f"tailrace+unix://{tmp_path}/wire.sock"])
    return tmp_path


async def test_it_says_where_it_listens_then_that_it_is_ready_and_stops_at_a_signal(directory):
    announced = Announcements()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_master, directory, announce=announced))
            await announced.ready.wait()
            async with client(directory) as api:
                endpoints = (await api.get("/api/status")).json()["endpoints"]
            os.kill(os.getpid(), signal.SIGTERM)
    assert announced.lines == [*(f"listening {endpoint}" for endpoint in endpoints), "ready"]
    assert announced.lines[0] != "listening tailrace://127.0.0.1:0"
    assert not (directory / SOCKET_FILE).exists()


async def test_who_follows_a_run_sees_no_end_of_it_when_the_master_stops(directory):
    secret = config.add_worker(directory, "w1")
    announced = Announcements()

    async def forever(order):
        await order.say(stdout="up\n")
        await trio.sleep_forever()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, client(directory) as api:
            nursery.start_soon(partial(serve_master, directory, announce=announced))
            await announced.ready.wait()
            worker = ScriptedWorker(nursery, {"shell": forever})
            async with dial(announced.endpoint, name="w1", secret=secret, instance="i", handler=worker):
                while (await api.get("/api/status")).json()["workers"] == 0:
                    pass
                run = (await api.post("/api/runs", json={"command": "shell"})).json()["id"]
                async with api.stream("GET", f"/api/runs/{run}/log", params={"follow": 1}) as answer:
                    pieces = answer.aiter_raw()
                    await anext(pieces)
                    os.kill(os.getpid(), signal.SIGTERM)
                    # It goes on: whoever wants to know comes again.
                    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                        async for _piece in pieces:
                            pass
                nursery.cancel_scope.cancel()
    async with open_store(directory) as store:
        assert [info.state for info in await store.runs()] == ["running"]


async def test_a_directory_is_served_once(directory):
    announced = Announcements()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_master, directory, announce=announced))
        await announced.ready.wait()
        with pytest.raises(StoreError, match="already"):
            await serve_master(directory, announce=Announcements())
        async with client(directory) as api:  # the first one is as it was
            assert (await api.get("/api/status")).status_code == 200
        nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_one_clear_error_and_leaves_no_socket(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tailrace://127.0.0.1:{taken.getsockname()[1]}"
        config.create_master(tmp_path, [endpoint])
        with pytest.raises(OSError, match=f"cannot listen on {endpoint}: "):
            await serve_master(tmp_path, announce=Announcements())
    assert not (tmp_path / SOCKET_FILE).exists()


async def test_a_directory_that_is_no_masters_is_refused(tmp_path):
    with pytest.raises(StoreError, match="tailrace master create"):
        await serve_master(tmp_path, announce=Announcements())
    assert list(tmp_path.iterdir()) == []
