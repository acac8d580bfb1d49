"""`tailrace workers`, `ps`, `show`, `stop`."""

from __future__ import annotations

import json


async def test_a_name_from_elsewhere_cannot_touch_the_terminal(master):
    done = await master.tailrace("workers")
    heads, row = done.stdout.decode().splitlines()
    assert heads.split()[:2] == ["NAME", "STATE"]
    assert "\x1b" not in row
    assert "w\\x1b[31m1" in row


async def test_ps_asks_for_what_runs_and_all_for_everything(master):
    await master.tailrace("ps")
    await master.tailrace("ps", "--all", "-n", "5")
    first, second = (told for _, path, told in master.asked if path == "/api/runs")
    assert first == {"limit": "20", "state": "running"}
    assert second == {"limit": "5"}


async def test_show_has_the_end_and_the_receipt(master):
    receipt = {"chain": "ab" * 32, "records": 4, "channels": {"stdout": [10, 2, 0, 0]}, "agrees": True}
    master.run.end = {"rc": 3, "receipt": receipt}
    shown = (await master.tailrace("show", "last")).stdout.decode()
    assert "exit 3" in shown
    assert "abababababababab" in shown
    assert "10 bytes, 2 lines\n" in shown
    assert json.loads((await master.tailrace("show", "last", "--json")).stdout)["receipt"] == receipt


async def test_a_run_that_waits_for_its_worker_says_so(master):
    master.run.end = {"state": "running", "suspended": True}
    assert "suspended" in (await master.tailrace("show", "last")).stdout.decode()
    assert "suspended" in (await master.tailrace("ps")).stdout.decode()


async def test_show_says_when_the_receipts_differ(master):
    master.run.end = {"rc": 0, "receipt": {"chain": "00", "records": 1, "channels": {}, "agrees": False}}
    assert "DAMAGED" in (await master.tailrace("show", "last")).stdout.decode()


async def test_stop_takes_the_reason_along(master):
    master.run.endless = True
    done = await master.tailrace("stop", "r1", "--why", "-wrong branch")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert master.asked[-1] == ("POST", "/api/runs/r1abc/stop", {"why": "-wrong branch"})


async def test_a_run_that_has_ended_is_left_alone(master):
    assert (await master.tailrace("stop", "last")).returncode == 0
    assert not master.run.stopped.is_set()
