"""The line that makes a real Buildbot worker for an endpoint of ours."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tailrace.link.endpoint import Endpoint

_PROTOCOLS: Final = {"pb": "", "msgpack": "--protocol=msgpack_experimental_v7 "}
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})


def buildbot_line(endpoint: Endpoint) -> str | None:
    """What to type on the worker's machine; `None` if no worker of Buildbot's speaks this wire."""
    protocol = _PROTOCOLS.get(endpoint.wire)
    if protocol is None:
        return None
    host = socket.gethostname() if endpoint.host in _EVERYWHERE else endpoint.host
    port = endpoint.port or "PORT"
    tls = endpoint.transport == "tls"
    if ":" in host:
        # The master's place is split at its colons there; a Twisted endpoint has them escaped.
        escaped = host.replace(":", "\\:")
        where = f"--connection-string='{'tls' if tls else 'tcp'}:host={escaped}:port={port}'"
        return f"buildbot-worker create-worker {protocol}{where} DIR localhost NAME SECRET"
    return f"buildbot-worker create-worker {protocol}{'--use-tls ' if tls else ''}DIR {host}:{port} NAME SECRET"
