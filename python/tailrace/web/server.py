"""HTTP on a Unix socket: the only module that knows the HTTP server (anycorn on trio).

The server's parts are used one by one, rather than its `serve`: it shields its sends from cancellation, so that one
client that reads no more would keep the process from ending. Here such a client's socket is shut down first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Final, final

import anyio.abc
import trio
from anycorn import Config
from anycorn.app_wrappers import ASGIWrapper
from anycorn.tcp_server import TCPServer
from anycorn.typing import ConnectionState, LifespanState
from anycorn.worker_context import WorkerContext

from tailrace.errors import StoreError
from tailrace.link.foreign import Raised, call_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anycorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

SOCKET_FILE: Final = "master.sock"

_GRACE_S: Final = 2.0
"""How long requests may take to end when serving stops: what they wait for has ended before."""

_LAST_QUESTION_S: Final = 0.25
"""How long serving goes on after that: who followed a run to its end asks then how it ended."""


@contextlib.contextmanager
def open_socket(directory: Path) -> Iterator[socket.socket]:
    """The listening socket `master.sock` in `directory`, of mode 0600; it goes with the block.

    One that a killed master left is replaced: who calls this holds the directory's lock. A path that is too long for a
    socket's address is no trouble, since the directory is named by its descriptor.
    """
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_stale(directory, parent)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            os.fchmod(listening.fileno(), 0o600)  # bind gives the file this mode: it is never open to others
            listening.bind(f"/proc/self/fd/{parent}/{SOCKET_FILE}")
            try:
                listening.listen(128)
                listening.setblocking(False)
                yield listening
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(SOCKET_FILE, dir_fd=parent)
    finally:
        os.close(parent)


async def serve(
    app: ASGIFramework,
    listening: socket.socket,
    stopping: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until `stopping`; those that are being answered then have a moment to end.

    Clients that were being answered may ask once more. Cancelled: they are broken off at once. Either way no connection
    outlives this.
    """
    requests = _Requests(app)
    clients = _Clients(requests)
    listener = await anyio.abc.SocketListener.from_socket(listening)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.hang_up_when_cancelled)
        nursery.start_soon(listener.serve, clients.serve)
        task_status.started()
        await stopping.wait()
        with trio.move_on_after(_GRACE_S):
            await requests.wait_quiet()
        nursery.cancel_scope.cancel()


@final
class _Clients:
    """The connections that are open."""

    def __init__(self, requests: _Requests) -> None:
        self._app = ASGIWrapper(requests.serve)
        self._config = Config()
        self._config.errorlog = None
        self._config.include_server_header = False
        self._context = WorkerContext(None)
        self._peers: set[socket.socket] = set()

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """One client's mishap is not the others'."""
        peer = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        self._peers.add(peer)
        server = TCPServer(self._app, self._config, self._context, ConnectionState(LifespanState({})), stream)
        try:
            await call_foreign(server.run)
        except Raised as raised:
            raised.report("a client's connection failed")
        finally:
            self._peers.discard(peer)

    async def hang_up_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)


@final
class _Requests:
    """An app that knows whether it is asked anything."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app
        self._running = 0
        self._asked = trio.current_time() - _LAST_QUESTION_S
        self._quiet = trio.Event()

    async def serve(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
            self._asked = trio.current_time()
            self._quiet.set()

    async def wait_quiet(self) -> None:
        """Until nothing was asked for a moment."""
        while self._running or trio.current_time() < self._asked + _LAST_QUESTION_S:
            if self._running:
                self._quiet = trio.Event()
                await self._quiet.wait()
            else:
                await trio.sleep_until(self._asked + _LAST_QUESTION_S)


def _remove_stale(directory: Path, parent: int) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(SOCKET_FILE, dir_fd=parent, follow_symlinks=False).st_mode):
            raise StoreError(f"{directory / SOCKET_FILE} is in the way: it is no socket")
        os.unlink(SOCKET_FILE, dir_fd=parent)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
