"""The HTTP API, over its socket, against a real master."""

from __future__ import annotations

import json
import os
import stat

import httpx
import pytest
import trio

from tailrace._core import Batch
from tailrace.errors import RemoteError
from tailrace.master import config
from tailrace.web.server import SOCKET_FILE


async def greet(order):
    await order.say(stdout="one\ntwo\n")
    await order.say(stderr="oops\n")
    await order.say(stdout="three\n")
    await order.end(rc=3, elapsed=0.25)


async def forever(order):
    await order.say(stdout="up\n")
    await order.interrupted.wait()
    await order.end(rc=-1, signal="SIGKILL", failure_reason="interrupted")


async def start(api, **body):
    body = {"worker": "w1", "command": "shell", "args": {"command": ["x"]}} | body
    answer = await api.post("/api/runs", content=json.dumps(body).encode())
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def log(api, run, **params):
    answer = await api.get(f"/api/runs/{run}/log", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-tailrace-records"
    return [(record.channel, record.data) for record in Batch.parse(answer.content).records()]


async def test_status_says_who_serves_where(api, farm):
    await farm.attach()
    answer = (await api.get("/api/status")).json()
    assert answer["master"] == farm.master.masterId
    assert answer["endpoints"] == farm.master.endpoints
    assert answer["workers"] == 1


async def test_workers_are_listed_with_what_they_do_and_without_their_secrets(api, farm):
    await farm.attach(shell=forever)
    await start(api)
    answer = await api.get("/api/workers")
    first, second = answer.json()
    assert (first["name"], first["state"], first["running"], first["info"]["system"]) == ("w1", "attached", 1, "posix")
    assert (second["name"], second["state"], second["running"]) == ("w2", "absent", 0)
    assert "hidden" not in answer.text
    assert "secret of" not in answer.text


async def test_a_worker_that_is_added_can_attach_at_once(api, farm, tmp_path):
    answer = await api.post("/api/workers", json={"name": "w3"})
    secret = answer.json()["secret"]
    assert answer.status_code == 201
    assert config.load_accounts(tmp_path) == {"w3": secret}
    await farm.attach("w3", secret=secret)
    assert (await api.delete("/api/workers/w3")).status_code == 200
    assert config.load_accounts(tmp_path) == {}


@pytest.mark.parametrize("body", [{}, {"name": 1}, {"name": "a b"}, {"name": "../x"}])
async def test_a_worker_needs_a_sane_name(api, body):
    answer = await api.post("/api/workers", json=body)
    assert 400 <= answer.status_code < 500
    assert "name" in answer.json()["error"]


async def test_a_run_is_started_waited_for_and_shown(api, farm):
    await farm.attach(shell=greet)
    run = await start(api)
    ended = (await api.get(f"/api/runs/{run}/wait")).json()
    assert (ended["state"], ended["rc"], ended["worker"], ended["title"]) == ("complete", 3, "w1", "x")
    assert ended["receipt"]["agrees"] is True
    assert (await api.get("/api/runs/last")).json() == ended
    assert (await api.get(f"/api/runs/{run[:-1]}")).json() == ended
    assert (await api.get("/api/runs")).json() == [ended]
    assert (await api.get("/api/runs", params={"state": "running"})).json() == []


async def test_without_a_worker_one_is_chosen(api, farm):
    await farm.attach(shell=greet)
    answer = await api.post("/api/runs", json={"worker": None, "builder": None, "command": "shell", "args": {}})
    assert answer.json()["worker"] == "w1"


async def test_a_log_is_sent_as_raw_records(api, farm):
    await farm.attach(shell=greet)
    run = await start(api)
    await api.get(f"/api/runs/{run}/wait")
    whole = [("stdout", b"one\ntwo\n"), ("stderr", b"oops\n"), ("stdout", b"three\n")]
    assert await log(api, run) == whole
    assert await log(api, run, channel="stdout") == [whole[0], whole[2]]
    assert await log(api, run, channel="stdout", from_line=2) == [("stdout", b"two\n"), ("stdout", b"three\n")]
    assert await log(api, run, from_line=3) == whole[1:]
    assert await log(api, run, tail=2) == whole[1:]


async def test_where_a_selection_begins_is_said_for_who_selects_himself(api, farm):
    await farm.attach(shell=greet)
    run = await start(api)
    await api.get(f"/api/runs/{run}/wait")
    raw = (await api.get(f"/api/runs/{run}/log")).content
    one, oops, three = (record.offset for record in Batch.parse(raw).records())
    for params, place in (
        ({}, (one, None)),
        ({"channel": "stdout", "from_line": 2}, (one, 1)),
        ({"channel": "stdout", "tail": 1}, (three, 0)),
        ({"from_line": 3, "follow": 1}, (oops, 0)),
    ):
        answer = (await api.get(f"/api/runs/{run}/place", params=params)).json()
        assert (answer["offset"], answer["cut"]) == place, params
    assert (await api.get(f"/api/runs/{run}/log", params={"offset": oops})).content == raw[oops:]


async def test_a_line_that_is_still_to_come_is_waited_for(api, farm):
    await farm.attach(shell=forever)
    run = await start(api)
    with trio.move_on_after(0.2):
        await api.get(f"/api/runs/{run}/place", params={"from_line": 2, "follow": 1})
        raise AssertionError("there is no second line")
    answer = (await api.get(f"/api/runs/{run}/place", params={"from_line": 2})).json()
    assert answer["offset"] > 0


async def test_a_run_is_verified_against_its_receipt(api, farm):
    await farm.attach(shell=greet)
    run = await start(api)
    await api.get(f"/api/runs/{run}/wait")
    found = (await api.get(f"/api/runs/{run}/verify")).json()
    assert (found["ok"], found["problems"], found["damaged_from"]) == (True, [], None)
    assert found["channels"]["stdout"] == [14, 3, 0]


async def test_a_run_without_a_receipt_is_not_verified(api, farm):
    await farm.attach(shell=forever)
    run = await start(api)
    found = (await api.get(f"/api/runs/{run}/verify")).json()
    assert not found["ok"]
    assert "has not ended" in found["problems"][0]


async def test_a_log_is_followed_to_its_end(api, farm):
    await farm.attach(shell=forever)
    run = await start(api)
    received = b""
    with trio.fail_after(5):
        async with api.stream("GET", f"/api/runs/{run}/log", params={"follow": 1}) as answer:
            async for piece in answer.aiter_raw():
                if not received:
                    await api.post(f"/api/runs/{run}/stop", json={"why": "enough"})
                received += piece
    batch = Batch.parse(received)
    assert batch.complete
    assert batch.records()[0].data == b"up\n"
    assert (await api.get(f"/api/runs/{run}")).json()["reason"] == "interrupted"


async def test_stopping_says_why_and_an_ended_run_is_left_alone(api, farm):
    worker = await farm.attach(shell=forever)
    run = await start(api)
    assert (await api.post(f"/api/runs/{run}/stop", json={"why": "enough"})).status_code == 200
    await api.get(f"/api/runs/{run}/wait")
    assert (await api.post(f"/api/runs/{run}/stop", json={})).status_code == 200
    assert worker.reasons == ["enough"]


async def test_arguments_that_are_no_text_arrive_as_bytes(api, farm):
    worker = await farm.attach(shell=greet)
    run = await start(api, args={"command": [os.fsdecode(b"\xff"), "ü"]})
    assert worker.orders[run].args == {"command": [b"\xff", "ü"]}


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/api/runs/zzz", 404, "zzz"),
        ("GET", "/api/runs/zzz/log", 404, "zzz"),
        ("POST", "/api/runs/zzz/stop", 404, "zzz"),
        ("DELETE", "/api/workers/zzz", 404, "zzz"),
        ("GET", "/nothing", 404, "Not Found"),
        ("GET", "/api/files", 400, "path"),
        ("PUT", "/api/files?worker=w2&path=x", 409, "w2"),
        ("GET", "/api/runs?limit=x", 400, "limit"),
    ],
)
async def test_what_goes_wrong_is_one_line(api, method, path, status, said):
    answer = await api.request(method, path)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert answer.json()["type"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(api, content):
    answer = await api.post("/api/runs", content=content)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


async def test_a_command_that_the_worker_refuses_is_said(api, farm):
    await farm.attach()
    answer = await api.post("/api/runs", json={"worker": "w1", "command": "nonsense"})
    assert answer.status_code == 400
    assert answer.json()["type"] == "UnknownCommand"


class Disk:
    """A worker's transfer commands, on a dict."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.modes: dict[str, int | None] = {}
        self.begun = trio.Event()
        self.interrupted = trio.Event()

    @property
    def scripts(self):
        return {name: getattr(self, name) for name in ("downloadFile", "downloadDirectory", "uploadFile", "stat")}

    async def downloadFile(self, order):
        data = bytearray()
        async with trio.open_nursery() as nursery:

            async def watch():
                await order.interrupted.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            while piece := await order.args["reader"].callRemote("read", 1 << 20):
                self.begun.set()
                data += piece
            nursery.cancel_scope.cancel()
        if order.interrupted.is_set():
            self.interrupted.set()
            await order.args["reader"].callRemote("close")
            await order.end(rc=1, failure_reason="interrupted")
            return
        await order.args["reader"].callRemote("close")
        self.files[order.args["workerdest"]] = bytes(data)
        self.modes[order.args["workerdest"]] = order.args.get("mode")
        await order.end()

    downloadDirectory = downloadFile

    async def uploadFile(self, order):
        data = self.files[order.args["workersrc"]]
        try:
            for at in range(0, len(data), 1 << 20):
                if order.interrupted.is_set():
                    await order.args["writer"].abort("interrupted")
                    await order.end(rc=1)
                    return
                await order.args["writer"].callRemote("write", data[at : at + (1 << 20)])
        except RemoteError:
            await order.end(rc=1)
            return
        if order.args["workersrc"] == "broken":
            await order.args["writer"].abort("the disk broke")
            await order.say(stderr="the disk broke\n")
            await order.end(rc=1)
            return
        await order.args["writer"].callRemote("close")
        await order.end()

    async def stat(self, order):
        if order.args["file"] not in self.files:
            await order.end(rc=2)
            return
        size = len(self.files[order.args["file"]])
        await order.end(stat=[stat.S_IFREG | 0o640, 0, 0, 1, 0, 0, size, 0, 1234, 0])


async def attach_disk(farm, **files):
    disk = Disk(**files)
    await farm.attach(**disk.scripts)
    return disk


async def pieces_of(data, size=65536):
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_a_file_goes_to_a_worker_as_it_is(api, farm):
    disk = await attach_disk(farm)
    data = os.urandom(5 << 20)
    answer = await api.put("/api/files?worker=w1&path=a/b&mode=493", content=pieces_of(data))
    assert answer.json() == {"bytes": len(data), "rc": 0, "error": None}
    assert disk.files["a/b"] == data
    assert disk.modes["a/b"] == 0o755


async def test_an_empty_file_and_a_tree_go_too(api, farm):
    disk = await attach_disk(farm)
    assert (await api.put("/api/files?worker=w1&path=empty", content=b"")).json()["bytes"] == 0
    assert (await api.put("/api/files?worker=w1&path=t&kind=tree", content=b"tar")).json()["bytes"] == 3
    assert disk.files == {"empty": b"", "t": b"tar"}


async def test_a_body_that_breaks_off_leaves_the_old_file(api, farm, tmp_path):
    disk = await attach_disk(farm, old=b"old")

    async def broken():
        yield bytes(100_000)
        await disk.begun.wait()
        raise OSError("broken")

    with trio.fail_after(5):
        with pytest.raises(OSError, match="broken"):
            await api.put("/api/files?worker=w1&path=old", content=broken())
        await disk.interrupted.wait()
        while farm.master.roster.attachment("w1").running:
            await trio.lowlevel.checkpoint()
    assert disk.files == {"old": b"old"}


async def test_a_file_comes_from_a_worker_as_it_is(api, farm):
    data = os.urandom(5 << 20)
    await attach_disk(farm, out=data, empty=b"")
    answer = await api.get("/api/files?worker=w1&path=out")
    assert answer.content == data
    assert answer.headers["x-tailrace-kind"] == "file"
    assert answer.headers["x-tailrace-size"] == str(len(data))
    assert answer.headers["x-tailrace-mode"] == str(0o640)
    assert (await api.get("/api/files?worker=w1&path=empty")).content == b""


async def test_a_file_that_is_not_there_is_said(api, farm):
    await attach_disk(farm)
    answer = await api.get("/api/files?worker=w1&path=nothing")
    assert answer.status_code == 400
    assert "w1:nothing: No such file or directory" in answer.json()["error"]


async def test_a_file_that_breaks_off_is_no_whole_answer(api, farm):
    await attach_disk(farm, broken=bytes(3 << 20))
    with pytest.raises(httpx.RemoteProtocolError):
        await api.get("/api/files?worker=w1&path=broken")


async def test_a_client_that_leaves_ends_its_transfer(farm, tmp_path):
    await attach_disk(farm, out=bytes(64 << 20))
    with trio.fail_after(10):
        async with await trio.open_unix_socket(str(tmp_path / SOCKET_FILE)) as client:
            await client.send_all(b"GET /api/files?worker=w1&path=out HTTP/1.1\r\nHost: master\r\n\r\n")
            assert (await client.receive_some()).startswith(b"HTTP/1.1 200")
        while farm.master.roster.attachment("w1").running:
            await trio.lowlevel.checkpoint()
