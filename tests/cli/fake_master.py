"""A master's HTTP API with runs that are made up, for tests of its clients."""

from __future__ import annotations

import json
import os
import sys
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import trio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tailrace._core import Journal
from tailrace.web.server import open_socket, serve

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("TAILRACE")} | {"NO_COLOR": "1"}


class Stream(StreamingResponse):
    """Closes what it streams, also when the client has gone."""

    async def stream_response(self, send) -> None:
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


@attrs.define
class FakeRun:
    """A run whose log is what `pieces` says: (channel, bytes)."""

    id: str = "r1abc"
    pieces: list[tuple[str, bytes]] = attrs.field(factory=list)
    end: dict[str, object] = attrs.field(factory=lambda: {"rc": 0})
    endless: bool = False
    """The log goes on until the run is stopped."""
    breaks: bool = False
    """The log ends in the middle of a record."""
    cuts: list[int] = attrs.field(factory=list)
    """After so many bytes the connection breaks off, one after another."""
    place: tuple[int, int | None] = (0, None)
    verified: dict[str, object] = attrs.field(factory=dict)
    stopped: trio.Event = attrs.field(factory=trio.Event)

    def row(self, ended: bool) -> dict[str, object]:
        row = {"id": self.id, "worker": "w1", "title": "a command", "started": 1.7e9, "state": "running"}
        return row | ({"state": "complete", "elapsed": 1.5} | self.end if ended else {})


@attrs.define
class FakeMaster:
    directory: Path
    run: FakeRun = attrs.field(factory=FakeRun)
    asked: list[tuple[str, str, dict[str, object]]] = attrs.field(factory=list)
    body: bytes = b""
    refusal: str | None = None

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/workers", self._workers, methods=["GET", "POST"]),
                Route("/api/runs", self._runs, methods=["GET", "POST"]),
                Route("/api/runs/{run}", self._run),
                Route("/api/runs/{run}/stop", self._stop, methods=["POST"]),
                Route("/api/runs/{run}/wait", self._run),
                Route("/api/runs/{run}/log", self._log),
                Route("/api/runs/{run}/place", self._place),
                Route("/api/runs/{run}/verify", self._verify),
                Route("/api/files", self._files, methods=["PUT", "GET"]),
            ]
        )

    async def tailrace(self, *arguments: str):
        """The command line as a process, with this master's directory."""
        return await trio.run_process(
            [sys.executable, "-m", "tailrace", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=ENVIRONMENT | {"TAILRACE_DIR": str(self.directory)},
        )

    async def _note(self, request) -> dict[str, object]:
        body = await request.body()
        told = json.loads(body) if body and request.headers.get("content-type") == "application/json" else {}
        self.asked.append((request.method, request.url.path, told | dict(request.query_params)))
        return told

    def _refused(self) -> Response | None:
        if self.refusal is None:
            return None
        return JSONResponse({"error": self.refusal, "type": "LocalProtocolError"}, status_code=409)

    async def _workers(self, request) -> Response:
        told = await self._note(request)
        if request.method == "POST":
            return JSONResponse({"name": told["name"], "secret": "told by the master"}, status_code=201)
        row = {"name": "w\x1b[31m1", "state": "attached", "running": 0, "since": 1.7e9, "peer": "127.0.0.1:9"}
        return JSONResponse([row])

    async def _runs(self, request) -> Response:
        await self._note(request)
        if request.method == "POST":
            return self._refused() or JSONResponse(self.run.row(False), status_code=201)
        return JSONResponse([self.run.row(True)])

    async def _run(self, request) -> Response:
        await self._note(request)
        return self._refused() or JSONResponse(self.run.row(not self.run.endless or self.run.stopped.is_set()))

    async def _stop(self, request) -> Response:
        await self._note(request)
        self.run.stopped.set()
        return JSONResponse({})

    async def _log(self, request) -> Response:
        await self._note(request)
        return Stream(self._cut(int(request.query_params.get("offset", 0))))

    async def _place(self, request) -> Response:
        await self._note(request)
        offset, cut = self.run.place
        return JSONResponse({"offset": offset, "cut": cut})

    async def _verify(self, request) -> Response:
        return JSONResponse(self.run.verified)

    async def _cut(self, offset: int):
        """The log from there on, as far as the connection holds."""
        cut, sent, skip = self.run.cuts.pop(0) if self.run.cuts else None, 0, offset
        async with aclosing(self._records()) as pieces:
            async for piece in pieces:
                piece, skip = piece[skip:], max(skip - len(piece), 0)
                yield piece if cut is None else piece[: cut - sent]
                sent += len(piece)
                if cut is not None and sent >= cut:
                    raise OSError("the connection is cut")

    async def _records(self):
        journal, at = Journal(), 0
        for number, (channel, data) in enumerate(self.run.pieces):
            kind, _, name = channel.partition(":")
            journal.append(kind, data, 1_700_000_000_000_000 + number * 1000, number * 1000, name or None)
            batch = journal.batch(at, 1 << 30)
            assert batch is not None
            raw, at = bytes(batch.raw), batch.end
            for cut in range(0, len(raw), 50_000):  # as the network may cut it
                yield raw[cut : cut + 50_000]
        if self.run.endless:
            await self.run.stopped.wait()
        if self.run.breaks:
            yield b"\0\0\1\0\1"

    async def _files(self, request) -> Response:
        self.asked.append((request.method, request.url.path, dict(request.query_params)))
        if request.method == "PUT":
            self.body = await request.body()
            return JSONResponse({"bytes": len(self.body), "rc": 1 if self.refusal else 0, "error": self.refusal})
        if refused := self._refused():
            return refused
        return Stream(self._broken_body(), headers={"x-tailrace-kind": "file"})

    async def _broken_body(self):
        yield self.body
        if self.run.breaks:
            raise OSError("the worker went away")


@asynccontextmanager
async def serving(directory: Path, run: FakeRun | None = None):
    """A fake master that serves `directory`. Behind the block clients are broken off, as by a kill."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tailrace.toml").write_text("[master]\n")
    fake = FakeMaster(directory, run or FakeRun())
    with open_socket(directory) as listening:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, fake.app(), listening, trio.Event())
            yield fake
            nursery.cancel_scope.cancel()
