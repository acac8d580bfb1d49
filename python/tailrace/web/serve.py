"""`tailrace master serve`: a directory's master, with its HTTP API, until it is told to stop."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import trio

from tailrace.master import config, open_master
from tailrace.web.app import make_app
from tailrace.web.server import open_socket, serve

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tailrace.master import Master

logger = logging.getLogger("tailrace.web")


async def serve_master(directory: Path, *, announce: Callable[[str], None]) -> None:
    """Serve the master of `directory` until SIGTERM or SIGINT; then sync and return.

    `announce` gets `listening URL` for each endpoint, with its real port, then `ready`.

    Raises:
        StoreError: the directory is no master's, of a newer version, or served already.
        OSError: an endpoint cannot be listened on.
    """
    settings = await trio.to_thread.run_sync(config.load, directory)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_master(
            directory,
            limits=settings.limits,
            tls=settings.tls(),
            durability=settings.durability,
            when_full=settings.when_full,
        ) as master:
            with open_socket(directory) as listening:
                # The accounts are read after the socket is there: who adds a worker asks us from now on.
                accounts = await trio.to_thread.run_sync(config.load_accounts, directory)
                for name, secret in accounts.items():
                    master.register(name, secret)
                for endpoint in settings.listen:
                    await master.listen(endpoint)
                await _serve_until_told(master, directory, listening, signals, announce)


async def _serve_until_told(
    master: Master,
    directory: Path,
    listening: socket.socket,
    signals: AsyncIterator[int],
    announce: Callable[[str], None],
) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, make_app(master, directory), listening, stopping)
        for endpoint in master.endpoints:
            announce(f"listening {endpoint}")
        announce("ready")
        async for number in signals:
            logger.info("%s: stopping", signal.Signals(number).name)
            break
        # First the runs end, so that whoever follows or waits for one is told; then the API does.
        await master.aclose()
        stopping.set()
