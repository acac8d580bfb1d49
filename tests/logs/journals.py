"""Runs and journals to put into a store."""

from __future__ import annotations

from tailrace._core import Journal
from tailrace.logs import RunInfo, new_id

EPOCH_US = 1_700_000_000_000_000


def run_info(**fields):
    """A run of which only the given fields matter."""
    defaults = {"id": new_id(), "worker": "w1", "builder": None, "command": "shell", "title": "make", "started": 1000.0}
    return RunInfo(**(defaults | fields))


class Writing:
    """A journal, and how much of it a writer has been given."""

    def __init__(self, writer):
        self.writer = writer
        self.journal = Journal()
        self.batches = []

    async def write(self, data, channel="stdout", name=None, at_s=0.0):
        """Append one record."""
        at_us = EPOCH_US + int(at_s * 1e6)
        self.journal.append(channel, data, at_us, at_us, name)
        await self.flush()

    async def complete(self, **end):
        """Complete the journal, and finish the run."""
        self.journal.update({"rc": 0})
        self.journal.finish()
        await self.flush()
        return await self.writer.finish(**end)

    async def flush(self):
        """Append what is not appended yet."""
        while (batch := self.journal.batch(self.writer.end, 1 << 20)) is not None:
            await self.writer.append(batch)
            self.batches.append(bytes(batch.raw))

    @property
    def raw(self):
        """All records so far."""
        return b"".join(self.batches)


async def begin(store, **fields):
    """A new run in `store`."""
    return Writing(await store.create(run_info(**fields)))


async def numbered_run(store, lines=100, **fields):
    """A complete run whose stdout is the numbers from 1 on, every tenth on stderr."""
    writing = await begin(store, **fields)
    for number in range(1, lines + 1):
        await writing.write(b"%d\n" % number, "stderr" if number % 10 == 0 else "stdout", at_s=number)
    return await writing.complete(rc=0)


async def texts(records):
    """(channel, data) of all records."""
    return [(record.channel, record.data) async for record in records]


async def output(records):
    """The data of stdout and stderr."""
    return b"".join([record.data async for record in records if record.channel in {"stdout", "stderr"}])
