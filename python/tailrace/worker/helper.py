"""The helper process, of which every supervisor is a fork: this daemon's end of it.

The helper is a bare interpreter that has loaded nothing but the extension, by its path: no site, no package, no
environment that could lead it elsewhere. What it does is in `rust/supervisor/src/helper.rs`, and so is what is said on
its socket.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Literal, final

import trio

import tailrace._core as _core

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_BYTES_MAX = 4096

WhenFull = Literal["wait", "gap"]
"""What happens when a command's spool is full, or its disk refuses: its child waits; or it writes on, what it writes is
dropped, and a gap says so."""

WHEN_FULL: tuple[WhenFull, ...] = ("wait", "gap")
NEW, TAKE_OVER = range(2)

STOP_S = 5.0
"""How long the helper may take to see that its socket was closed."""

PROGRAM = """
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
import _imp
loader = ExtensionFileLoader("_core", sys.argv[1])
core = loader.create_module(ModuleSpec("_core", loader, origin=sys.argv[1]))
loader.exec_module(core)
core.supervisor_helper_main(int(sys.argv[2]))
"""


@final
class Helper:
    """Starts supervisors. Starts itself when it is needed, and again when it has died."""

    def __init__(self, ring_bytes: int, spool_bytes_max: int, when_full: WhenFull) -> None:
        self._numbers = ring_bytes, spool_bytes_max, WHEN_FULL.index(when_full)
        self._turn = trio.Lock()
        self._process: trio.Process | None = None
        self._socket: trio.socket.SocketType | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Starts the process, so that the first command need not wait for it."""
        with trio.CancelScope(shield=True):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket = trio.socket.from_stdlib_socket(ours)
            with theirs:
                self._process = await trio.lowlevel.open_process(
                    [sys.executable, "-I", "-S", "-c", PROGRAM, _core.__file__, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C in the daemon's terminal is the daemon's
                )

    async def start(self, directory: Path) -> int:
        """Makes `directory` with a supervisor in it; gives its process id.

        Not cancelled once begun: it takes a millisecond, and half a supervisor would belong to nobody.

        Raises:
            OSError: the directory exists, or cannot be made, or there are too many processes.
        """
        return await self._request(struct.pack("=QQBB", *self._numbers, NEW) + os.fsencode(directory), directory)

    async def take_over(self, directory: Path, failure: tuple[str, str]) -> int:
        """Starts a supervisor in the `directory` of one that has died; gives its process id. Not cancelled once begun.

        It kills what is left of the command, ends its journal with the failure, if it has no end, and waits until all
        of it was released.

        Raises:
            OSError: there is no journal, or it is not one that is known here.
        """
        words = [os.fsencode(directory), *(word.encode() for word in failure)]
        return await self._request(struct.pack("=QQBB", *self._numbers, TAKE_OVER) + b"\0".join(words), directory)

    async def _request(self, request: bytes, directory: Path) -> int:
        with trio.CancelScope(shield=True):
            async with self._turn:
                answer = await self._ask(request)
        (number,) = struct.unpack_from("=i", answer)
        if number < 0:
            doing = answer[4:].decode()
            raise OSError(-number, f"{os.strerror(-number)} while {doing}", str(directory))
        return int(number)

    async def aclose(self) -> None:
        """Ends the process. The supervisors that it has started live on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            with trio.move_on_after(STOP_S, shield=True):
                await self._process.wait()
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
            self._process = None

    async def _ask(self, request: bytes) -> bytes:
        for _ in range(2):
            if self._socket is None:
                await self.open()
            if answer := await self._exchange(request):
                return answer
            # It has died. What it was about to do when it did is not known, but then `directory` exists.
            await self.aclose()
        raise ChildProcessError("the supervisors' helper process does not live")

    async def _exchange(self, request: bytes) -> bytes:
        assert self._socket is not None
        try:
            await self._socket.send(request)
            return await self._socket.recv(ANSWER_BYTES_MAX)
        except OSError:
            return b""
