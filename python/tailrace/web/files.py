"""Files and trees between an HTTP client and a worker, passing through: nothing of them touches the master's disk."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from tailrace.errors import RemoteError, TailraceError
from tailrace.master import Master, RunResult
from tailrace.master.passing import PassingReader, PassingWriter, TransferAborted
from tailrace.web.streams import ByteStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tailrace.link import Connection
    from tailrace.master.command import TransferCommand

BLOCK_BYTES: Final = 1024 * 1024

_STOPPING_S: Final = 5.0
"""How long the worker may take to end a transfer that nobody wants any more."""

_UNPACK: Final = 'mkdir -p -- "$2" && tar -xf "$1" -C "$2"; rc=$?; rm -f -- "$1"; exit $rc'

Kind = Literal["file", "tree"]


async def put_file(request: Request) -> Response:
    """The request's body into a file, or a tree, of a worker. It is in its place whole, or as it was."""
    master, worker, path = _where(request)
    kind = _kind(request, default="file")
    if kind == "tree" and worker in master.workers and not _knows(master.workers[worker], "downloadDirectory"):
        return await _put_archive(request, master, worker, path)
    args: dict[str, object] = {"workerdest": path, "mode": _mode(request)}
    return await _put(request, master, worker, "downloadFile" if kind == "file" else "downloadDirectory", args)


async def _put(request: Request, master: Master, worker: str, name: str, more: Mapping[str, object]) -> Response:
    reader = PassingReader()
    args = {"workdir": ".", "reader": reader, "blocksize": BLOCK_BYTES, "maxsize": None, **more}
    command = await master.transfer(worker, name, args)
    command.on_end(reader.close)
    try:
        await _feed(request, reader)
        result = await command.wait()
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the client went away") from None
    finally:
        await _stop(command)
        reader.abort("the client went away")
    error = None if _worked(result) else _why(command, result)
    return JSONResponse({"bytes": reader.bytes, "rc": result.rc, "error": error})


async def _put_archive(request: Request, master: Master, worker: str, path: str) -> Response:
    """A tree for a worker of Buildbot's, which has no command for it: as an archive, which is unpacked there."""
    archive = f"{path.rstrip('/')}.{secrets.token_hex(4)}.tar"
    response = await _put(request, master, worker, "downloadFile", {"workerdest": archive, "mode": 0o600})
    said = json.loads(bytes(response.body))
    result = None
    try:
        if said["error"] is None:
            args = {"command": ["/bin/sh", "-c", _UNPACK, "sh", archive, path], "workdir": ".", "logEnviron": False}
            command = await master.transfer(worker, "shell", args)
            result = await command.wait()
            said |= {"rc": result.rc, "error": None if _worked(result) else _why(command, result)}
    finally:
        if result is None:
            with trio.move_on_after(_STOPPING_S, shield=True), suppress(TailraceError):
                await (await master.transfer(worker, "rmfile", {"path": archive})).wait()
    return JSONResponse(said)


async def get_file(request: Request) -> Response:
    """A file, or a tree, of a worker. The connection breaks off if it cannot be sent whole."""
    master, worker, path = _where(request)
    mode, size, mtime = await _look_up(master, worker, path)
    kind = _kind(request, default="tree" if stat.S_ISDIR(mode) else "file")
    writer = PassingWriter()
    args = {"workersrc": path, "workdir": ".", "writer": writer, "blocksize": BLOCK_BYTES, "maxsize": None}
    command = await master.transfer(worker, "uploadFile" if kind == "file" else "uploadDirectory", args)
    command.on_end(writer.cut)
    pieces = _pieces(command, writer)
    first = await anext(pieces, None)  # a file that cannot be read is an answer, not a broken stream
    headers = {"x-tailrace-kind": kind, "x-tailrace-mode": str(stat.S_IMODE(mode)), "x-tailrace-mtime": str(mtime)}
    if kind == "file":
        headers["x-tailrace-size"] = str(size)
    return ByteStream(pieces, first=first, media_type="application/octet-stream", headers=headers)


async def _feed(request: Request, reader: PassingReader) -> None:
    """Passes the body on; stops when the worker wants no more of it. Raises ClientDisconnect."""
    with suppress(TransferAborted):
        async for piece in request.stream():
            await reader.send(piece)
        reader.end()


async def _pieces(command: TransferCommand, writer: PassingWriter) -> AsyncGenerator[bytes | memoryview]:
    """What the worker sends. Raises TransferAborted at the end, unless all of it came."""
    try:
        while (piece := await writer.take()) is not None:
            yield piece
        result = await command.wait()
        if not (writer.complete and _worked(result)):
            raise TransferAborted(_why(command, result))
    finally:
        await _stop(command)
        writer.close()


async def _stop(command: TransferCommand) -> None:
    """Interrupts a transfer that has not ended, also when this task is being cancelled."""
    if not command.ended:
        with trio.move_on_after(_STOPPING_S, shield=True):
            await command.interrupt("nobody waits for it")
            await command.wait()


async def _look_up(master: Master, worker: str, path: str) -> tuple[int, int, int]:
    """Mode, size and modification time."""
    command = await master.transfer(worker, "stat", {"file": path, "workdir": "."})
    result = await command.wait()
    if result.stat is None:
        raise _remote(worker, path, result)
    return result.stat[stat.ST_MODE], result.stat[stat.ST_SIZE], result.stat[stat.ST_MTIME]


def _where(request: Request) -> tuple[Master, str, str]:
    master = request.app.state.master
    worker, path = request.query_params.get("worker"), request.query_params.get("path")
    if not worker or not path or "\0" in path:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "say which worker and which path")
    assert isinstance(master, Master)
    return master, worker, path


def _knows(connection: Connection, command: str) -> bool:
    known = connection.info.get("worker_commands")
    return not isinstance(known, Mapping) or command in known


def _kind(request: Request, *, default: Kind) -> Kind:
    match request.query_params.get("kind", "auto"):
        case "auto" | "":
            return default
        case "file":
            return "file"
        case "tree":
            return "tree"
        case other:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"kind is file or tree, not {other!r}")


def _mode(request: Request) -> int | None:
    """Permission bits as a number, decimal or with 0o before it."""
    text = request.query_params.get("mode", "")
    try:
        return int(text, 0) & 0o7777 if text else None
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"mode is a number, not {text!r}") from None


def _worked(result: RunResult) -> bool:
    return result.rc == 0 and result.failure is None


def _why(command: TransferCommand, result: RunResult) -> str:
    """One line: why the transfer is not whole."""
    if result.failure is not None:
        return result.failure[1] or result.failure[0]
    return command.errors or result.reason or f"the transfer failed (rc {result.rc})"


def _remote(worker: str, path: str, result: RunResult) -> RemoteError:
    """A file system command's failure; its rc is an errno."""
    if result.failure is not None:
        return RemoteError(*result.failure)
    return RemoteError("OSError", f"{worker}:{path}: {os.strerror(result.rc or 0)}")
