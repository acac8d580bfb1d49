from __future__ import annotations

import trio
import trio.testing

from tailrace._core import Ledger
from tailrace.worker import journal
from tailrace.worker.journal import MemoryOutput


async def test_what_is_written_is_read_in_order():
    out = MemoryOutput()
    await out.append("stdout", b"a\n")
    await out.append("stdout", b"")
    await out.update({"rc": 3})
    await out.finish()
    batch = out.journal.batch(0, 1 << 20)
    assert batch.channel_bytes("stdout") == b"a\n"
    assert batch.updates() == {"rc": 3}
    assert batch.complete
    assert out.journal.ended


async def test_a_writer_waits_for_its_reader(monkeypatch, autojump_clock):
    monkeypatch.setattr(journal, "KEPT_BYTES_MAX", 1000)
    out = MemoryOutput()
    with trio.move_on_after(10) as scope:
        for _ in range(10):
            await out.append("stdout", b"x" * 500)
    assert scope.cancelled_caught
    assert out.journal.end < 2500
    out.released(out.journal.end)
    with trio.fail_after(10):
        await out.append("stdout", b"more")


async def test_an_abandoned_journal_waits_for_nobody(monkeypatch, autojump_clock):
    monkeypatch.setattr(journal, "KEPT_BYTES_MAX", 1000)
    out = MemoryOutput()
    out.abandon()
    with trio.fail_after(10):
        for _ in range(10):
            await out.append("stdout", b"x" * 500)


async def test_growing_is_seen(nursery, autojump_clock):
    out = MemoryOutput()
    seen = []

    async def watch():
        await out.wait_grown(0)
        seen.append(out.journal.end)

    nursery.start_soon(watch)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == []
    await out.append("stdout", b"x")
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [out.journal.end]


async def test_the_chain_is_known_at_every_boundary_that_was_not_released():
    out = MemoryOutput()
    ledger, chains = Ledger(), {0: bytes(32)}
    for count in range(50):
        await out.append("stdout", b"x" * count * 100)
        if batch := out.journal.batch(ledger.offset, 1 << 20):
            ledger.add(batch)
        chains[ledger.offset] = ledger.chain
    assert {offset: out.journal.chain_at(offset) for offset in chains} == chains
    boundary = sorted(chains)[20]
    out.released(boundary + 1)
    assert out.journal.begin == boundary
    assert out.journal.chain_at(boundary) == chains[boundary]
    assert out.journal.chain_at(boundary + 1) is None
    assert out.journal.chain_at(sorted(chains)[19]) is None
