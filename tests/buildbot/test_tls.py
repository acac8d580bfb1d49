"""Buildbot's wires over TLS: its worker at our master, our worker at its master, and our own pair.

A Buildbot master has no TLS for msgpack: there our two ends have only each other.
"""

from __future__ import annotations

import signal
import ssl
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from tailrace.master import Master, open_master
from tests.buildbot.master import FarmMaster
from tests.buildbot.real import (
    PATIENCE_S,
    SUCCESS,
    TEST_S,
    WIRES,
    Process,
    make_worker,
    start_worker,
    wait_for,
)
from tests.whole.farm import Daemon, run_tailrace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_S)]


@attrs.frozen
class Trust:
    """An authority, and a certificate of its for `localhost`."""

    directory: Path
    """With nothing but the authority's certificate, `ca.pem`."""
    authority: Path
    server: Path
    """Key and certificate, in one file."""
    context: ssl.SSLContext
    """The server's."""


@pytest.fixture(scope="module")
def trust(tmp_path_factory) -> Trust:
    directory = tmp_path_factory.mktemp("trust")
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate = authority.issue_cert("localhost")
    certificate.configure_cert(context)
    (directory / "ca").mkdir()
    authority.cert_pem.write_to_path(str(directory / "ca" / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    return Trust(directory / "ca", directory / "ca" / "ca.pem", directory / "server.pem", context)


@pytest.fixture(params=WIRES)
def wire(request) -> str:
    return request.param


@asynccontextmanager
async def serving(directory: Path, wire: str, trust: Trust):
    """A Tailrace master on TLS, and its port."""
    listen = [f"{wire}+tls://localhost:0"]
    async with open_master(directory / "master", listen=listen, accounts={"w1": "sesame"}, tls=trust.context) as master:
        yield master, int(master.endpoints[0].rsplit(":", 1)[1])


async def hello(master: Master) -> bytes:
    """What a command says, once there is a worker."""
    with trio.fail_after(PATIENCE_S):
        await master.wait_for_worker("w1")
        run = await master.start("w1", "shell", {"command": ["echo", "hello"], "workdir": "."})
        assert (await run.wait()).rc == 0
        return b"".join([record.data async for record in run.follow(channel="stdout")])


def real_worker(home: Path, wire: str, port: int, trust: Trust, style: str) -> Process:
    """It is told of TLS by a flag, and of the authority by its system; or of both by a connection string."""
    if style == "flag":
        make_worker(home, wire, port, host="localhost", use_tls=True)
        return start_worker(home, SSL_CERT_FILE=str(trust.authority))
    make_worker(home, wire, port, connection_string=f"tls:host=localhost:port={port}:trustRoots={trust.directory}")
    return start_worker(home)


@pytest.mark.parametrize("style", ["flag", "connection string"])
async def test_buildbots_worker_at_our_master(tmp_path, wire, trust, style):
    async with serving(tmp_path, wire, trust) as (master, port):
        worker = real_worker(tmp_path / "w", wire, port, trust, style)
        try:
            assert await hello(master) == b"hello\n"
        finally:
            await trio.to_thread.run_sync(worker.stop)


async def test_buildbots_worker_that_does_not_trust_us_does_not_attach(tmp_path, wire, trust, caplog):
    async with serving(tmp_path, wire, trust) as (master, port):
        home = make_worker(tmp_path / "stranger", wire, port, host="localhost", use_tls=True)
        stranger = start_worker(home)
        try:
            # On PB only we hear why.
            with trio.fail_after(PATIENCE_S):
                while "unknown ca" not in caplog.text:  # noqa: ASYNC110
                    await trio.sleep(0.02)
            assert not master.workers
            worker = real_worker(tmp_path / "w", wire, port, trust, "flag")
            try:
                assert await hello(master) == b"hello\n"
            finally:
                await trio.to_thread.run_sync(worker.stop)
        finally:
            await trio.to_thread.run_sync(stranger.stop)


def our_worker(home: Path, url: str, name: str, trust: Trust | None) -> Daemon:
    """Its process."""
    secret = home.parent / f"{name}.secret"
    secret.write_text("sesame\n")
    run_tailrace("worker", "create", home, "--master", url, "--name", name, "--secret-file", secret)
    if trust is not None:
        with (home / "tailrace.toml").open("a") as file:
            file.write(f'\n[tls]\nca_file = "{trust.authority}"\n')
    return Daemon("worker", "serve", home)


async def test_our_own_pair(tmp_path, wire, trust):
    async with serving(tmp_path, wire, trust) as (master, port):
        url = f"{wire}+tls://localhost:{port}"
        worker = await trio.to_thread.run_sync(our_worker, tmp_path / "w", url, "w1", trust)
        try:
            assert await hello(master) == b"hello\n"
        finally:
            await trio.to_thread.run_sync(worker.stop, signal.SIGKILL)


def test_our_worker_at_buildbots_master(tmp_path, trust):
    master = FarmMaster(tmp_path / "m", sys.executable, {"w1": "pb", "w2": "pb"}, certificate=trust.server)
    url = f"pb+tls://localhost:{master.ports['pb']}"
    stranger = our_worker(tmp_path / "stranger", url, "w2", None)
    worker = our_worker(tmp_path / "w", url, "w1", trust)
    try:
        log = tmp_path / "stranger" / "worker.log"
        wait_for(lambda: (log.exists() and "certificate verify failed" in log.read_text()) or None, "the refusal")
        worker.line(f"attached {url}")
        master.wait_attached("w1")
        master.build(["quick-w1"])
        assert master.wait_build("quick-w1").results == SUCCESS
    finally:
        for daemon in (stranger, worker):
            daemon.stop(signal.SIGKILL)
        master.stop()
