"""URLs of the wires: parse, listen, dial. The only place that knows of sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Literal, TypeAlias, final
from urllib.parse import urlsplit

import attrs
import trio

from tailrace.dialects import DIALECTS
from tailrace.errors import LocalProtocolError
from tailrace.link.tls import below_tls, listener_below_tls, tls_client, tls_listener

# Our own, and the one that Buildbot's documentation uses for its workers.
DEFAULT_PORTS = {"tailrace": 7117, "pb": 9989, "msgpack": 9989}
# Little unsent data sits in the kernel, so that an urgent frame does not wait behind it: 128 KiB are 1 ms on a
# gigabit line.
NOTSENT_LOWAT_BYTES = 128 * 1024
# `sun_path` of Linux, without the final zero.
UNIX_PATH_BYTES_MAX = 107

Transport: TypeAlias = Literal["tcp", "tls", "unix"]
_TRANSPORTS: dict[str, Transport] = {"": "tcp", "tls": "tls", "unix": "unix"}
# With a password the name before it is shown; without one it is a name for ssh, and to HTTP it may be a token.
_CREDENTIALS = re.compile(
    r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/@:]*:)[^\s/]*@|(?P<http>\bhttps?://)[^\s/@:]+@"
)


@final
@attrs.frozen(kw_only=True)
class Endpoint:
    """Where a wire is spoken: `tailrace://host:port`, `tailrace+tls://host:port` or `tailrace+unix:///path`.

    The wires of Buildbot are `pb` and `msgpack`, each also with `+tls`.
    """

    wire: str
    transport: Transport
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read a URL.

        Raises:
            LocalProtocolError: it is not one, and why.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise LocalProtocolError(f"{url!r} is not an endpoint: {error}") from error
        wire, _, suffix = parts.scheme.partition("+")
        transport = _TRANSPORTS.get(suffix)
        if transport is None or wire not in DIALECTS:
            wires = ", ".join(f"{name}://" for name in DIALECTS)
            raise _bad(url, f"it begins with {wires} (or +tls, as in tailrace+tls://), or with tailrace+unix:///")
        if transport == "unix" and wire != "tailrace":
            raise _bad(url, "only tailrace speaks over Unix sockets")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise _bad(url, "an endpoint has no user, query or fragment")
        if transport == "unix":
            return _unix(url, wire, parts.netloc, parts.path)
        if parts.path not in ("", "/"):
            raise _bad(url, "only tailrace+unix:// has a path")
        if not parts.hostname:
            raise _bad(url, "the host is missing; 0.0.0.0 or [::] is every address of this machine")
        return cls(
            wire=wire, transport=transport, host=parts.hostname, port=DEFAULT_PORTS[wire] if port is None else port
        )

    def __str__(self) -> str:
        suffix = "" if self.transport == "tcp" else f"+{self.transport}"
        if self.transport == "unix":
            return f"{self.wire}{suffix}://{self.path}"
        return f"{self.wire}{suffix}://{self.authority}"

    @property
    def authority(self) -> str:
        """`host:port`, as in a URL; nothing for a Unix socket."""
        if self.transport == "unix":
            return ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def require_tls(self, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
        """The context to listen with: there is one exactly if the endpoint asks for TLS."""
        if self.transport == "tls" and tls is None:
            raise LocalProtocolError(f"{self} needs a certificate: give tls=ssl.SSLContext")
        if self.transport != "tls" and tls is not None:
            raise LocalProtocolError(f"{self} does not use TLS, and tls= was given: write {self.wire}+tls://")
        return tls


async def open_listeners(endpoint: Endpoint, tls: ssl.SSLContext | None) -> list[trio.abc.Listener[trio.abc.Stream]]:
    """Bind and listen. Cancelled: nothing is bound.

    Raises:
        OSError: with a text that says what, where and why: the port is in use, the address is not ours, …
    """
    endpoint.require_tls(tls)
    try:
        if endpoint.transport == "unix":
            return [await _listen_unix(endpoint.path)]
        opened = await trio.open_tcp_listeners(endpoint.port, host=endpoint.host)
    except OSError as error:
        raise _os_error("cannot listen on", endpoint, error) from error
    if endpoint.port == 0:
        # Each address of a name would get a port of its own.
        for surplus in opened[1:]:
            await surplus.aclose()
        opened = opened[:1]
    if tls is None:
        return [*opened]
    return [tls_listener(listener, tls) for listener in opened]


def bound(endpoint: Endpoint, listener: trio.abc.Listener[trio.abc.Stream]) -> Endpoint:
    """The endpoint with the port that it really got."""
    inner = listener_below_tls(listener)
    if endpoint.transport == "unix" or not isinstance(inner, trio.SocketListener):
        return endpoint
    return attrs.evolve(endpoint, port=inner.socket.getsockname()[1])


async def connect(endpoint: Endpoint, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """Connect to a master. Cancelled: there is no connection.

    Raises:
        OSError: with a text that says where and why.
    """
    try:
        if endpoint.transport == "unix":
            return await trio.open_unix_socket(endpoint.path)
        stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    except OSError as error:
        raise _os_error("cannot connect to", endpoint, error) from error
    tune(stream)
    if endpoint.transport == "tcp":
        return stream
    context = tls or ssl.create_default_context()
    secure = tls_client(stream, context, endpoint.host)
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(secure)
        raise OSError(errno.EPROTO, f"cannot connect to {endpoint}: {error.__cause__ or error}") from error
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


def tune(stream: trio.abc.Stream) -> None:
    """TCP as the wire wants it: little unsent data in the kernel, its own receive window, and, as trio has it anyway,
    small frames at once."""
    inner = below_tls(stream)
    if isinstance(inner, trio.SocketStream):
        # A Unix socket has nothing of it. A peer that is gone already is found out by reading.
        with contextlib.suppress(OSError):
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)


def peer_of(stream: trio.abc.Stream) -> str:
    """Who is at the other end, for people."""
    inner = below_tls(stream)
    if not isinstance(inner, trio.SocketStream):
        return "a stream"
    try:
        address = inner.socket.getpeername()
    except OSError:
        return "a socket"
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return "a local socket"


def without_secrets(text: str) -> str:
    """A text for people and for logs: of the URLs in it no password is left, and no token that stands for a user."""
    return _CREDENTIALS.sub(lambda found: f"{found['scheme'] or found['http']}{found['user'] or ''}***@", text)


def _unix(url: str, wire: str, netloc: str, path: str) -> Endpoint:
    if netloc or not path.startswith("/") or path == "/":
        raise _bad(url, "a Unix socket is written tailrace+unix:///path/of/socket")
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        raise _bad(url, f"the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes")
    return Endpoint(wire=wire, transport="unix", path=path)


@final
class _UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Removes its path when it is closed, if it is still its own."""

    def __init__(self, sock: trio.socket.SocketType, path: Path) -> None:
        self._listener = trio.SocketListener(sock)
        self._path = path
        self._inode = path.stat().st_ino

    async def accept(self) -> trio.SocketStream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        _remove_own(self._path, self._inode)
        await self._listener.aclose()


async def _listen_unix(path: str) -> _UnixListener:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if await _is_stale(Path(path)):
            os.unlink(path)
        await sock.bind(path)
        sock.listen(socket.SOMAXCONN)
        return _UnixListener(sock, Path(path))
    except BaseException:
        sock.close()
        raise


def _is_socket(path: Path) -> bool:
    return path.is_socket()


def _remove_own(path: Path, inode: int) -> None:
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass


async def _is_stale(path: Path) -> bool:
    """Whether a socket is left there by a process that is gone."""
    if not _is_socket(path):
        # A file refuses connections too.
        return False
    try:
        await (await trio.open_unix_socket(path)).aclose()
    except ConnectionRefusedError:
        return True
    return False


def _bad(url: str, why: str) -> LocalProtocolError:
    return LocalProtocolError(f"{url!r} is not an endpoint: {why}")


def _os_error(what: str, endpoint: Endpoint, error: OSError) -> OSError:
    """With the endpoint in it. trio says "all attempts failed", and has the reasons behind it."""
    cause: BaseException = error
    while (deeper := _cause(cause)) is not None:
        cause = deeper
    number = getattr(cause, "errno", None) or error.errno or errno.EIO
    if number == errno.EADDRINUSE:
        text = "the port is in use" if endpoint.transport != "unix" else "another process listens there"
    elif isinstance(cause, socket.gaierror):
        text = f"the host is not known ({cause.strerror})"
    else:
        text = os.strerror(number) if number > 0 else str(cause)
    return OSError(number, f"{what} {endpoint}: {text}")


def _cause(error: BaseException) -> BaseException | None:
    return error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
