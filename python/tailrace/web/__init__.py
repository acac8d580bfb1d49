"""The master's HTTP API: Starlette on a Unix socket in the state directory.

- `streams`: answers of unknown length
- `files`: files between a client and a worker
- `app`: the routes
- `server`: the socket, and the HTTP server on it
- `serve`: all of it with a master, until a signal
"""

from tailrace.web.app import make_app
from tailrace.web.serve import serve_master

__all__ = ["make_app", "serve_master"]
