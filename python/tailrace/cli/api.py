"""The master's HTTP API, as its clients on the same machine use it: JSON and streams over a Unix socket."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Union, final

import attrs
import httpx

from .failure import OURS, TRANSFER_FAILED, Failure
from .records import Framer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tailrace._core import Batch

    from .settings import Settings

SOCKET = "master.sock"
_SUN_PATH_MAX = 107  # bytes of a Unix socket's name, the final zero excepted

_REMEDIES = {
    "worker ": "`tailrace workers` lists those that there are",
    "no worker ": "`tailrace workers` lists those that there are",
    "there is no run": "`tailrace ps --all` lists those that there are",
}
"""What to do about what the master says, by its beginning."""

Json = Union[bool, int, float, str, list["Json"], dict[str, "Json"], None]  # noqa: UP007  (`|` takes no forward name)
Row = Mapping[str, Json]


class MasterAway(Failure):
    """The master is not there, or went away before it had answered."""


@final
class MasterAbsent(MasterAway):
    """Nobody serves there."""


@attrs.frozen(kw_only=True)
class RunInfo:
    """What the master keeps of a run. `row` is all of it, as it came."""

    row: Row
    id: str
    state: str
    worker: str
    title: str
    started: float
    rc: int | None
    signal: str | None
    reason: str | None
    elapsed: float | None
    failure: str | None

    @property
    def ended(self) -> bool:
        return self.state not in ("running", "starting", "pending")


@final
class Api:
    """One client of one master. What the master refuses, and its absence, are `Failure`s."""

    def __init__(self, client: httpx.AsyncClient, directory: Path) -> None:
        self._client = client
        self._directory = directory

    async def workers(self) -> list[Row]:
        return _rows(await self._ask("GET", "/api/workers"))

    async def runs(self, *, limit: int, state: str | None = None) -> list[RunInfo]:
        params = {"limit": str(limit)} | ({"state": state} if state else {})
        return [run_info(row) for row in _rows(await self._ask("GET", "/api/runs", params=params))]

    async def run(self, name: str) -> RunInfo:
        return run_info(_row(await self._ask("GET", _run_path(name))))

    async def wait(self, name: str) -> RunInfo:
        """The run, when it has ended."""
        return run_info(_row(await self._ask("GET", _run_path(name, "wait"))))

    async def verify(self, name: str) -> Row:
        """What is stored of it, counted anew; `ok` says whether it is what was sent."""
        return _row(await self._ask("GET", _run_path(name, "verify")))

    async def start(self, worker: str | None, builder: str | None, command: str, args: Mapping[str, Json]) -> RunInfo:
        """When cancelled, it may or may not have started."""
        body: Json = {"worker": worker, "builder": builder, "command": command, "args": dict(args)}
        return run_info(_row(await self._ask("POST", "/api/runs", body=body)))

    async def add_worker(self, name: str) -> str:
        """Its secret; the master knows it from now on."""
        return _text(_row(await self._ask("POST", "/api/workers", body={"name": name})), "secret")

    async def stop(self, name: str, why: str) -> None:
        await self._ask("POST", _run_path(name, "stop"), body={"why": why})

    async def place(self, name: str, params: Mapping[str, str]) -> tuple[int, int | None]:
        """Where the records begin that `params` choose: an offset for `log`, and at which line start to cut the first.

        With `follow=1` as soon as they have begun.
        """
        row = _row(await self._ask("GET", _run_path(name, "place"), params=params))
        return _optional_int(row, "offset") or 0, _optional_int(row, "cut")

    @asynccontextmanager
    async def log(self, name: str, offset: int = 0, *, follow: bool) -> AsyncIterator[AsyncGenerator[Batch]]:
        """The run's records as they are kept, from `offset` on; with `follow` until the run ends.

        Only whole records come.
        """
        params = {"offset": str(offset)} | ({"follow": "1"} if follow else {})
        with self._explained():
            async with self._client.stream("GET", _run_path(name, "log"), params=params) as response:
                await _check(response)
                yield self._batches(response, offset)

    async def put(self, params: Mapping[str, str], body: AsyncIterator[bytes]) -> Row:
        """The master's answer, when the file or tree is in its place on the worker."""
        with self._explained(broken=TRANSFER_FAILED):
            response = await self._client.put("/api/files", params=dict(params), content=body)
            await _check(response, code=TRANSFER_FAILED)
            return _row(_json(await response.aread()))

    @asynccontextmanager
    async def get(self, params: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """A file or a tree from a worker, streaming. A body that breaks off is a `Failure`: drop what came."""
        with self._explained(broken=TRANSFER_FAILED):
            async with self._client.stream("GET", "/api/files", params=dict(params)) as response:
                await _check(response, code=TRANSFER_FAILED)
                yield response

    async def _ask(self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Json = None) -> Json:
        with self._explained():
            sent = None if body is None else json.dumps(body).encode(errors="surrogateescape")
            headers = {} if sent is None else {"content-type": "application/json"}
            response = await self._client.request(method, path, params=params, content=sent, headers=headers)
            await _check(response)
            return _json(response.content)

    async def _batches(self, response: httpx.Response, offset: int) -> AsyncGenerator[Batch]:
        framer = Framer(offset)
        async for data in response.aiter_raw():
            if (batch := framer.receive_data(data)) is not None:
                yield batch
        framer.receive_eof()

    @contextmanager
    def _explained(self, *, broken: int | None = None) -> Iterator[None]:
        """Turns what can happen to a request into what the user can do about it."""
        try:
            yield
        except httpx.ConnectError as error:
            raise self._absent() from error
        except (httpx.TransportError, httpx.StreamError) as error:
            if broken is not None:
                raise Failure(
                    "the transfer broke off", "what was there is as it was; try again", code=broken
                ) from error
            raise MasterAway(f"the master at {self._directory} went away", "is it still serving?") from error

    def _absent(self) -> Failure:
        directory = self._directory
        try:
            os.stat(directory / SOCKET)
        except PermissionError:
            return Failure(f"{directory} belongs to somebody else", "ask as the user who serves that master")
        except OSError:
            if not (directory / "tailrace.toml").exists():
                return Failure(
                    f"{directory} is not a master's directory", f"`tailrace master create {directory}` makes one"
                )
        return MasterAbsent(f"no master is serving {directory}", f"start it: tailrace master serve {directory}")


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[Api]:
    directory = settings.master_directory()
    with _short(directory) as path:
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://master", timeout=None, trust_env=False
        ) as client:
            yield Api(client, directory)


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A name of the socket that fits into a `sockaddr_un`, however deep the directory is."""
    path = os.path.join(directory, SOCKET)
    if len(os.fsencode(path)) <= _SUN_PATH_MAX:
        yield path
        return
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise Failure(f"{directory}: {error.strerror}", f"`tailrace master create {directory}` makes one") from error
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def run_info(row: Row) -> RunInfo:
    return RunInfo(
        row=row,
        id=_text(row, "id"),
        state=_text(row, "state"),
        worker=_text(row, "worker"),
        title=_text(row, "title"),
        started=number(row, "started") or 0.0,
        rc=_optional_int(row, "rc"),
        signal=_optional_text(row, "signal"),
        reason=_optional_text(row, "reason"),
        elapsed=number(row, "elapsed"),
        failure=_failure(row.get("failure")),
    )


def number(row: Row, key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else None


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _optional_text(row: Row, key: str) -> str | None:
    value = row.get(key)
    return value if isinstance(value, str) else None


def _optional_int(row: Row, key: str) -> int | None:
    value = row.get(key)
    return value if isinstance(value, int) else None


def _failure(value: Json) -> str | None:
    match value:
        case None:
            return None
        case {"text": str(text)}:
            return text
        case [str(_), str(text)]:
            return text
        case _:
            return str(value)


def _run_path(name: str, what: str = "") -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise Failure(f"there is no run {name!r}", "`tailrace ps` lists those that are running, `last` is the newest")
    return f"/api/runs/{name}/{what}" if what else f"/api/runs/{name}"


async def _check(response: httpx.Response, *, code: int = OURS) -> None:
    """Raises what the master says against it."""
    if response.status_code < 400:
        return
    answer = _json(await response.aread())
    if isinstance(answer, dict) and isinstance(said := answer.get("error"), str):
        todo = next((todo for begin, todo in _REMEDIES.items() if said.startswith(begin)), "")
        raise Failure(said, "" if todo in said else todo, code=code)
    raise Failure(f"the master answered {response.status_code} to {response.request.url.path}", "see its own output")


def _json(content: bytes) -> Json:
    try:
        value: Json = json.loads(content)
    except ValueError:
        return None
    return value


def _row(value: Json) -> Row:
    if not isinstance(value, dict):
        raise Failure("the master answered with something else than expected", "is it a master of another version?")
    return value


def _rows(value: Json) -> list[Row]:
    if not isinstance(value, list):
        raise Failure("the master answered with something else than expected", "is it a master of another version?")
    return [_row(row) for row in value]
