"""The socket in the state directory, and how serving on it ends."""

from __future__ import annotations

import os
import socket
import stat

import httpx
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tailrace.errors import StoreError
from tailrace.web.server import SOCKET_FILE, open_socket, serve
from tailrace.web.streams import ByteStream


def client(path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://master", timeout=None)


async def hello(_request):
    return PlainTextResponse("hello")


async def endless(_request):
    async def pieces():
        while True:
            yield bytes(65536)

    return ByteStream(pieces(), media_type="text/plain")


APP = Starlette(routes=[Route("/", hello), Route("/endless", endless)])


def test_the_socket_is_never_open_to_others(tmp_path):
    before = os.umask(0)
    try:
        with open_socket(tmp_path):
            assert stat.S_IMODE((tmp_path / SOCKET_FILE).stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not (tmp_path / SOCKET_FILE).exists()


def test_a_socket_that_a_killed_master_left_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET_FILE))
    with open_socket(tmp_path), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(tmp_path / SOCKET_FILE))


def test_a_file_in_its_place_is_not_deleted(tmp_path):
    (tmp_path / SOCKET_FILE).write_text("precious")
    with pytest.raises(StoreError, match="in the way"), open_socket(tmp_path):
        pass
    assert (tmp_path / SOCKET_FILE).read_text() == "precious"


async def test_a_path_too_long_for_an_address_serves(tmp_path, nursery):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with open_socket(deep) as listening:
        await nursery.start(serve, APP, listening, trio.Event())
        descriptor = os.open(deep, os.O_PATH)
        async with client(f"/proc/self/fd/{descriptor}/{SOCKET_FILE}") as api:
            assert (await api.get("/")).text == "hello"
        os.close(descriptor)
        nursery.cancel_scope.cancel()


async def test_stopping_lets_no_idle_connection_linger(tmp_path):
    stopping = trio.Event()
    with open_socket(tmp_path) as listening, trio.fail_after(1):
        async with client(tmp_path / SOCKET_FILE) as api, trio.open_nursery() as nursery:
            await nursery.start(serve, APP, listening, stopping)
            await api.get("/")
            stopping.set()


async def test_a_client_that_reads_no_more_does_not_keep_the_server(tmp_path):
    with open_socket(tmp_path) as listening, socket.socket(socket.AF_UNIX) as caller, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, APP, listening, trio.Event())
            caller.connect(str(tmp_path / SOCKET_FILE))
            caller.sendall(b"GET /endless HTTP/1.1\r\nHost: master\r\n\r\n")
            await trio.lowlevel.wait_readable(caller)
            await trio.testing.wait_all_tasks_blocked(0.05)  # the kernel's buffers are full
            nursery.cancel_scope.cancel()
