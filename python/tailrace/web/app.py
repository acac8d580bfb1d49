"""The HTTP API of a serving master. JSON, but for logs (raw records, PROTOCOL.md section 6) and files.

| | |
|---|---|
| GET `/api/status` | version, master, endpoints, workers |
| GET, POST `/api/workers`; DELETE `/api/workers/NAME` | the workers that may attach |
| GET, POST `/api/runs`; GET `/api/runs/RUN` | RUN: an id, a unique prefix of one, or `last` |
| POST `/api/runs/RUN/stop`; GET `/api/runs/RUN/wait` | |
| GET `/api/runs/RUN/log?follow&channel&name&from_line&tail&offset` | raw records |
| GET `/api/runs/RUN/place?follow&channel&name&from_line&tail` | where they begin, for who filters: `offset`, `cut` |
| GET `/api/runs/RUN/verify` | what is stored, counted anew, beside its receipt; `ok` |
| PUT, GET `/api/files?worker&path&kind&mode` | bytes of a file, or a POSIX tar stream of a tree |

What goes wrong is answered with 4xx or 5xx and `{"error": one line, "type": class}`.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import attrs
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tailrace._core import __version__
from tailrace.errors import (
    ConnectionClosed,
    ConnectionLost,
    LocalProtocolError,
    RemoteError,
    StoreError,
    TailraceError,
    describe,
)
from tailrace.master import Master, config
from tailrace.master.passing import TransferAborted
from tailrace.web.files import get_file, put_file
from tailrace.web.streams import ByteStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from starlette.requests import Request

    from tailrace.logs import LogStore, RunInfo
    from tailrace.master.roster import Roster

logger = logging.getLogger("tailrace.web")

RECORDS_TYPE: Final = "application/x-tailrace-records"

_RUNS_MAX: Final = 1000
"""Of one answer: a screenful is fifty."""

_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of a JSON request. The kernel takes 2 MiB of arguments and environment together; JSON may double them."""

_UNRECEIPTED: Final = {
    "running": "the run has not ended",
    "lost": "the run was lost",
    "complete": "its worker sent none",
}


def make_app(master: Master, directory: Path) -> Starlette:
    """The API of `master`, whose accounts are in `directory`."""
    routes = [
        Route("/api/status", _status),
        Route("/api/workers", _workers, methods=["GET"]),
        Route("/api/workers", _add_worker, methods=["POST"]),
        Route("/api/workers/{name}", _remove_worker, methods=["DELETE"]),
        Route("/api/runs", _runs, methods=["GET"]),
        Route("/api/runs", _start, methods=["POST"]),
        Route("/api/runs/{run}", _run),
        Route("/api/runs/{run}/stop", _stop, methods=["POST"]),
        Route("/api/runs/{run}/wait", _wait),
        Route("/api/runs/{run}/log", _log),
        Route("/api/runs/{run}/place", _place),
        Route("/api/runs/{run}/verify", _verify),
        Route("/api/files", put_file, methods=["PUT"]),
        Route("/api/files", get_file, methods=["GET"]),
    ]
    handlers = {TailraceError: _tailrace_error, OSError: _os_error, HTTPException: _http_error, Exception: _our_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.state.master = master
    app.state.directory = directory
    return app


def _master(request: Request) -> Master:
    master = request.app.state.master
    assert isinstance(master, Master)
    return master


async def _status(request: Request) -> Response:
    master = _master(request)
    return JSONResponse(
        {
            "version": __version__,
            "master": master.masterId,
            "endpoints": master.endpoints,
            "workers": len(master.workers),
        }
    )


async def _workers(request: Request) -> Response:
    roster = _master(request).roster
    return _json([_worker_row(roster, name) for name in sorted({*roster.accounts, *roster})])


async def _add_worker(request: Request) -> Response:
    name = _string(await _body(request), "name")
    secret = await trio.to_thread.run_sync(config.add_worker, request.app.state.directory, name)
    _master(request).register(name, secret)
    return JSONResponse({"name": name, "secret": secret}, status_code=HTTPStatus.CREATED)


async def _remove_worker(request: Request) -> Response:
    name = request.path_params["name"]
    await trio.to_thread.run_sync(config.remove_worker, request.app.state.directory, name)
    _master(request).register(name, None)
    return JSONResponse({})


async def _runs(request: Request) -> Response:
    limit = min(_number(request, "limit", 100), _RUNS_MAX)
    state = request.query_params.get("state")
    found = await _master(request).store.runs(limit=limit, state=state)
    return _json([run_row(info, _master(request)) for info in found])


async def _start(request: Request) -> Response:
    body = await _body(request)
    args = body.get("args", {})
    if not isinstance(args, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "args must be an object")
    master = _master(request)
    run = await master.start(
        _string(body, "worker", optional=True) or None,
        _string(body, "command"),
        {str(key): _bytes_where_needed(value) for key, value in args.items()},
        builder=_string(body, "builder", optional=True) or None,
    )
    return _json(run_row(await master.store.run(run.id), master), HTTPStatus.CREATED)


async def _run(request: Request) -> Response:
    return _json(run_row(await _found(request), _master(request)))


async def _stop(request: Request) -> Response:
    why = _string(await _body(request), "why", optional=True) or "stopped by the user"
    await _master(request).stop((await _found(request)).id, why)
    return JSONResponse({})


async def _wait(request: Request) -> Response:
    info = await _found(request)
    master = _master(request)
    if info.state == "running":
        await master.store.wait_ended(info.id)
        info = await master.store.run(info.id)
    return _json(run_row(info, master))


async def _log(request: Request) -> Response:
    info = await _found(request)
    query = request.query_params
    follow = query.get("follow", "0") not in {"", "0"}
    store = _master(request).store
    if query.keys() & {"channel", "name", "from_line", "tail"}:
        pieces = _chosen_records(request, store, info.id, follow=follow)
    else:
        pieces = _all_records(store, info.id, _number(request, "offset", 0), follow=follow)
    return ByteStream(pieces, media_type=RECORDS_TYPE, headers={"x-tailrace-run": info.id})


async def _all_records(store: LogStore, run: str, offset: int, *, follow: bool) -> AsyncGenerator[bytes | memoryview]:
    async with aclosing(store.batches(run, from_offset=offset, follow=follow)) as batches:
        async for batch in batches:
            yield batch.raw


def _chosen_records(request: Request, store: LogStore, run: str, *, follow: bool) -> AsyncGenerator[bytes | memoryview]:
    """Log records of one channel, or from a line on; the first is cut at that line."""
    channel, from_line, tail = _selection(request)

    async def pieces() -> AsyncGenerator[bytes | memoryview]:
        read = store.follow if follow else store.read
        async with aclosing(read(run, from_line=from_line, tail=tail, channel=channel)) as records:
            async for record in records:
                if len(record):  # a record that was cut at its end is none
                    yield record.encode()

    return pieces()


async def _place(request: Request) -> Response:
    channel, from_line, tail = _selection(request)
    wait = request.query_params.get("follow", "0") not in {"", "0"}
    store, run = _master(request).store, (await _found(request)).id
    offset, cut = await store.place(run, from_line=from_line, tail=tail, channel=channel, wait=wait)
    return _json({"offset": offset, "cut": cut})


async def _verify(request: Request) -> Response:
    verified = await _master(request).store.verify(await _found(request))
    missing = () if verified.receipt is not None else (f"there is no receipt: {_UNRECEIPTED[verified.state]}",)
    row = attrs.asdict(verified) | {"ok": verified.ok and not missing, "problems": [*verified.problems, *missing]}
    return _json(row)


def _selection(request: Request) -> tuple[str | None, int, int | None]:
    """Channel, first line, and how many from the end."""
    query = request.query_params
    channel, name = query.get("channel"), query.get("name")
    if name is not None:
        channel = f"log:{name}"
    tail = _number(request, "tail", 0) if "tail" in query else None
    return channel, max(_number(request, "from_line", 1), 1), tail


async def _found(request: Request) -> RunInfo:
    return await _master(request).store.run(request.path_params["run"])


def run_row(info: RunInfo, master: Master) -> dict[str, object]:
    """A run as the API says it. It is `suspended` while it should run, and its worker is away."""
    attached = info.worker in master.roster and master.roster[info.worker].state == "attached"
    return attrs.asdict(info) | {"suspended": info.suspended or (info.state == "running" and not attached)}


def _worker_row(roster: Roster, name: str) -> dict[str, object]:
    if name not in roster:
        return {"name": name, "state": "absent", "peer": None, "since": None, "running": 0, "info": {}}
    attachment = roster.attachment(name)
    connection = attachment.connection
    # A worker's environment may hold what is nobody's business; who needs it asks the library.
    info = {key: value for key, value in connection.info.items() if key != "environ"}
    return {
        "name": name,
        "state": connection.state,
        "peer": str(connection.peer),
        "since": attachment.since,
        "running": attachment.running,
        "info": info,
    }


async def _body(request: Request) -> dict[str, object]:
    """A JSON object from the request."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _BODY_BYTES_MAX:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {_BODY_BYTES_MAX} bytes of JSON")
    try:
        body = json.loads(data) if data else {}
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return body


def _string(body: Mapping[str, object], key: str, *, optional: bool = False) -> str:
    value = body.get(key)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{key} must be a string")
    return value


def _number(request: Request, key: str, default: int) -> int:
    text = request.query_params.get(key, "")
    if text == "":
        return default
    if not text.isascii() or not text.isdigit():
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{key} must be a number, not {text!r}")
    return int(text)


def _bytes_where_needed(value: object) -> object:
    """`value` with the strings that are no text (a command line may hold any bytes) as bytes."""
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return os.fsencode(value)
            return value
        case dict():
            return {key: _bytes_where_needed(item) for key, item in value.items()}
        case list():
            return [_bytes_where_needed(item) for item in value]
        case _:
            return value


def _json(value: object, status: int = HTTPStatus.OK) -> Response:
    content = json.dumps(value, default=_plain).encode()
    return Response(content, status, media_type="application/json")


def _plain(value: object) -> object:
    """What JSON has no form for."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _status_of(error: TailraceError) -> HTTPStatus:
    match error:
        case LocalProtocolError():
            return HTTPStatus.CONFLICT
        case StoreError():
            return HTTPStatus.NOT_FOUND
        case RemoteError():
            return HTTPStatus.BAD_REQUEST
        case ConnectionLost() | ConnectionClosed() | TransferAborted():
            return HTTPStatus.BAD_GATEWAY
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


async def _tailrace_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, TailraceError)
    kind, text = describe(error)
    return JSONResponse({"error": text, "type": kind}, status_code=_status_of(error))


async def _os_error(_request: Request, error: Exception) -> Response:
    kind, text = describe(error)
    return JSONResponse({"error": text, "type": kind}, status_code=HTTPStatus.INTERNAL_SERVER_ERROR)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail, "type": "HTTPException"}, status_code=error.status_code)


async def _our_error(request: Request, error: Exception) -> Response:
    kind, text = describe(error)
    logger.error("%s %s: %s", request.method, request.url.path, text, exc_info=error)
    return JSONResponse({"error": f"{kind}: {text}", "type": kind}, status_code=HTTPStatus.INTERNAL_SERVER_ERROR)
