"""`tailrace verify`: how it says what the master has found."""

from __future__ import annotations

import json

CHANNELS = {"stdout": [10, 2, 0], "stderr": [0, 0, 30]}


async def test_channels_and_ok(master):
    master.run.verified = {"ok": True, "channels": CHANNELS, "problems": [], "damaged_from": None}
    done = await master.tailrace("verify", "last")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "stdout  10 bytes, 2 lines",
        "stderr  0 bytes, 0 lines, 30 bytes in gaps",
        "ok",
    ]


async def test_what_differs_is_said(master):
    master.run.verified = {"ok": False, "channels": CHANNELS, "problems": ["the chain is another"], "damaged_from": 77}
    done = await master.tailrace("verify", "last")
    assert done.returncode == 1
    assert b"ok" not in done.stdout
    assert b"tailrace: the chain is another\n" in done.stderr
    assert b"from byte 77 of the journal" in done.stderr


async def test_json_has_all_of_it(master):
    master.run.verified = {"ok": False, "channels": CHANNELS, "problems": ["p"], "damaged_from": None}
    done = await master.tailrace("verify", "last", "--json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (1, master.run.verified, b"")
