"""URLs of the wires."""

from __future__ import annotations

import socket

import pytest
import trio

from tailrace.errors import LocalProtocolError
from tailrace.link.endpoint import Endpoint, connect, open_listeners, without_secrets


@pytest.mark.parametrize(
    ("url", "wire", "transport", "host", "port", "path"),
    [
        ("tailrace://127.0.0.1:7117", "tailrace", "tcp", "127.0.0.1", 7117, ""),
        ("tailrace://build.example.org:1", "tailrace", "tcp", "build.example.org", 1, ""),
        ("tailrace://[::1]:0", "tailrace", "tcp", "::1", 0, ""),
        ("tailrace+tls://localhost:443", "tailrace", "tls", "localhost", 443, ""),
        ("tailrace+unix:///run/tailrace/socket", "tailrace", "unix", "", 0, "/run/tailrace/socket"),
    ],
)
def test_an_endpoint_is_read_and_written(url, wire, transport, host, port, path):
    endpoint = Endpoint.parse(url)
    assert endpoint == Endpoint(wire=wire, transport=transport, host=host, port=port, path=path)
    assert str(endpoint) == url


def test_the_port_may_be_left_out():
    assert str(Endpoint.parse("tailrace://host")) == "tailrace://host:7117"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("127.0.0.1:7117", "begins with tailrace://"),
        ("http://127.0.0.1:7117", "begins with tailrace://"),
        ("tailrace+ssh://host", "begins with tailrace://"),
        ("tailrace://", "the host is missing"),
        ("tailrace://:7117", "the host is missing"),
        ("tailrace://host:port", "Port"),
        ("tailrace://host:70000", "Port"),
        ("tailrace://[::1", "Invalid IPv6"),
        ("tailrace://host/path", "has a path"),
        ("tailrace://user@host", "no user"),
        ("tailrace://host?a=b", "query"),
        ("tailrace+unix://host/path", "tailrace\\+unix:///path"),
        ("tailrace+unix:///", "tailrace\\+unix:///path"),
        ("tailrace+unix:///" + "x" * 200, "at most 107 bytes"),
    ],
)
def test_what_is_no_endpoint_is_said_why(url, why):
    with pytest.raises(LocalProtocolError, match=f"is not an endpoint.*{why}"):
        Endpoint.parse(url)


async def test_tcp_is_tuned_for_small_frames():
    [listener] = await open_listeners(Endpoint.parse("tailrace://localhost:0"), None)
    port = listener.socket.getsockname()[1]
    stream = await connect(Endpoint.parse(f"tailrace://localhost:{port}"), None)
    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 128 * 1024
    await stream.aclose()
    await listener.aclose()


async def test_listening_where_one_may_not_is_said_where():
    with pytest.raises(OSError, match=r"cannot listen on tailrace://192\.0\.2\.1:7117: Cannot assign"):
        await open_listeners(Endpoint.parse("tailrace://192.0.2.1:7117"), None)
    with pytest.raises(OSError, match=r"cannot listen on tailrace\+unix:///no/such/dir/s: No such file"):
        await open_listeners(Endpoint.parse("tailrace+unix:///no/such/dir/s"), None)


async def test_a_socket_that_is_not_there_is_said_where(tmp_path):
    with pytest.raises(OSError, match=r"cannot connect to .*No such file"):
        await connect(Endpoint.parse(f"tailrace+unix://{tmp_path}/none"), None)


async def test_a_file_is_not_overwritten_by_a_socket(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="cannot listen"), trio.fail_after(5):
        await open_listeners(Endpoint.parse(f"tailrace+unix://{path}"), None)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://bot:hunter2@example.org/x.git", "https://bot:***@example.org/x.git"),
        ("https://bot:hun@ter2@example.org:8443/x", "https://bot:***@example.org:8443/x"),
        ("http://token@example.org/x", "http://***@example.org/x"),
        ("--url=ftp://:x@example.org", "--url=ftp://:***@example.org"),
        ("ssh://git@example.org/x", "ssh://git@example.org/x"),
        ("git@example.org:x/y.git", "git@example.org:x/y.git"),
        ("https://example.org/a:b@c", "https://example.org/a:b@c"),
    ],
)
def test_secrets_in_urls_are_not_shown(url, shown):
    assert without_secrets(url) == shown
