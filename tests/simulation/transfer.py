"""Files that go up and down while everything goes wrong: at both ends the bytes are known."""

from __future__ import annotations

import random

import trio

from tailrace.errors import TailraceError
from tailrace.link.impl import FileReaderImpl, FileWriterImpl

from .oracle import Oracle

PIECE = 3000


def content(seed: int, size: int) -> bytes:
    rng = random.Random(seed)
    # Half of the files can be compressed.
    return (rng.randbytes(size if seed % 2 else size // 4 + 1) * 4)[:size]


class Upload(FileWriterImpl):
    """At the master: takes a file, and looks at every byte of it."""

    def __init__(self, oracle: Oracle, expected: bytes) -> None:
        self.closed = 0
        self._oracle = oracle
        self._expected = expected
        self._at = 0

    async def remote_write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._oracle.transferred(self._expected[self._at : self._at + len(data)] == data, "upload")
        self._at += len(data)

    async def remote_utime(self, accessed_modified: tuple[float, float]) -> None:
        raise AssertionError("it was not sent")

    async def remote_unpack(self) -> None:
        raise AssertionError("it is no directory")

    async def remote_close(self) -> None:
        self.closed += 1
        self._oracle.transferred(self._at == len(self._expected) and self.closed == 1, "upload's end")


class Download(FileReaderImpl):
    """At the master: gives a file."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    async def remote_read(self, maxLength: int) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self._data = self._data[: min(maxLength, PIECE)], self._data[min(maxLength, PIECE) :]
        return bytes(piece)

    async def remote_close(self) -> None:
        pass


async def upload(args, proxy) -> None:
    """At the worker: the command that sends a file."""
    data = content(args["seed"], args["size"])

    async def send() -> None:
        for at in range(0, len(data), PIECE):
            await args["writer"].callRemote("write", data[at : at + PIECE])
        await args["writer"].callRemote("close")

    await _conclude(send, proxy)


async def download(args, proxy, oracle: Oracle) -> None:
    """At the worker: the command that takes one."""
    expected = content(args["seed"], args["size"])

    async def take() -> None:
        at = 0
        while piece := await args["reader"].callRemote("read", PIECE):
            oracle.transferred(expected[at : at + len(piece)] == piece, "download")
            at += len(piece)
        oracle.transferred(at == len(expected), "download's end")
        await args["reader"].callRemote("close")

    await _conclude(take, proxy)


async def _conclude(work, proxy) -> None:
    try:
        await work()
        rc = 0
    except TailraceError:
        rc = 1
    try:
        await proxy.callRemote("update", {"rc": rc})
        await proxy.callRemote("complete")
    except TailraceError:
        pass
