"""Many quiet workers in one process, each with a TCP connection of its own.

`python quiet_crowd.py ENDPOINT FIRST COUNT`, as `crowd.py`, for what quiet workers cost a master: they log in, at
most `AT_ONCE` at the same time, say `attached SECONDS`, answer every call and every ping, run nothing, and stay until
stdin ends. Each has the real session behind a real socket. What is left out is the worker around it, which on a farm
is another machine's: here one loop serves them all, or this process would be what is measured. To `bare://HOST:PORT`
they only connect.
"""

from __future__ import annotations

import secrets
import select
import socket
import sys
import time

from tailrace.dialects.native.dialect import NativeDialect
from tailrace.limits import Limits
from tailrace.link.endpoint import Endpoint
from tailrace.messages import Called, GetWorkerInfo, Held, LoggedIn, PeerClosed, Ponged, Replied, SetBuilderList

AT_ONCE = 64
READ_BYTES = 65536
LIMITS = Limits()
INFO = {"encoding": "utf-8", "basedir": "/w", "version": "1"}


class Worker:
    """One connection."""

    def __init__(self, address: tuple[str, int], number: int, *, bare: bool) -> None:
        self.is_attached = bare
        # Loopback answers at once, as long as the master's backlog is longer than `AT_ONCE`.
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self._session: NativeDialect | None = None
        if not bare:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._session = NativeDialect(
                "worker",
                id=f"instance-{number}",
                nonce=secrets.token_bytes(32),
                limits=LIMITS,
                name=f"w{number}",
                secret=b"s",
            )
            self._drain(self._session)

    def on_readable(self) -> None:
        """Something came."""
        if self._session is None:
            raise EOFError("the master has closed")
        if self._session.direct.receive_from(self.socket.fileno(), READ_BYTES) == 0:
            raise EOFError("the master has closed")
        self._drain(self._session)

    def leave(self) -> None:
        """Say goodbye."""
        if self._session is not None:
            self._session.close("bye")
            self._session.direct.send_to(self.socket.fileno(), READ_BYTES)
        self.socket.close()

    def _drain(self, session: NativeDialect) -> None:
        while (event := session.next_event()) is not None:
            match event:
                case LoggedIn():
                    session.call(Held(()))
                case Replied():
                    self.is_attached = True
                case Called(call, GetWorkerInfo()):
                    session.reply(call, INFO)
                case Called(call, SetBuilderList(builders)):
                    session.reply(call, [name for name, _directory in builders])
                case Called(call, _):
                    session.reply(call, None)
                case Ponged():
                    pass
                case PeerClosed(reason, text):
                    raise EOFError(f"the master has closed ({reason}): {text}")
                case _:
                    raise ValueError(f"a quiet worker does not expect {event}")
        # What it says is short, and fits into the socket.
        if not session.direct.send_to(self.socket.fileno(), READ_BYTES):
            raise BlockingIOError("the socket takes no more")


def main(endpoint: str, first: int, count: int) -> None:
    bare = endpoint.startswith("bare://")
    where = Endpoint.parse(endpoint.replace("bare://", "tailrace://"))
    waiting = iter(range(first, first + count))
    workers: dict[int, Worker] = {}
    attaching: set[int] = set()
    poll = select.epoll()
    poll.register(sys.stdin, select.EPOLLIN)
    began, attached = time.perf_counter(), 0
    while True:
        while len(attaching) < AT_ONCE and (number := next(waiting, None)) is not None:
            worker = Worker((where.host, where.port), number, bare=bare)
            fd = worker.socket.fileno()
            workers[fd] = worker
            poll.register(fd, select.EPOLLIN)
            if worker.is_attached:
                attached += 1
            else:
                attaching.add(fd)
        if attached == count:
            print("attached", time.perf_counter() - began, flush=True)
            attached = -1
        for fd, _what in poll.poll():
            if fd == sys.stdin.fileno():
                for worker in workers.values():
                    worker.leave()
                return
            workers[fd].on_readable()
            if fd in attaching and workers[fd].is_attached:
                attaching.remove(fd)
                attached += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
