"""A worker without a connection: its attachment, called as `link` would, and stand-ins for the master's objects."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from tailrace._core import Batch, Blake3, chunk_records
from tailrace.errors import RemoteError
from tailrace.limits import Limits
from tailrace.worker.config import Manners
from tailrace.worker.worker import open_worker


class Report:
    """In the place of a RemoteCommandProxy: takes a command's journal, as a master does.

    `broken`: what is raised when the first output has come. `slow_s`: how long it takes for each batch.
    """

    key = None

    def __init__(self, broken=None, slow_s=0):
        self.batches = []
        self.done = trio.Event()
        self._broken = broken
        self._slow_s = slow_s
        self._grown = trio.Event()

    async def send(self, source):
        try:
            offset = source.journal.begin
            while not (source.journal.ended and offset == source.journal.end):
                batch = source.journal.batch(offset, 1 << 18)
                if batch is None:
                    await source.wait_grown(offset)
                    continue
                await trio.sleep(self._slow_s)
                self.batches.append(batch)
                offset = batch.end
                source.released(offset)
                self._grown.set()
                self._grown = trio.Event()
                if self._broken is not None and self.stdout:
                    raise self._broken
        finally:
            self.done.set()

    async def wait_until(self, condition):
        """Until it is true, looked at whenever something has come."""
        with trio.fail_after(30):
            while not condition():
                await self._grown.wait()

    def channel(self, channel, name=None):
        return b"".join(batch.channel_bytes(channel, name) for batch in self.batches)

    @property
    def stdout(self):
        return self.channel("stdout")

    @property
    def stderr(self):
        return self.channel("stderr")

    @property
    def header(self):
        return self.channel("header")

    @property
    def updates(self):
        merged = {}
        for batch in self.batches:
            merged |= batch.updates()
        return merged

    @property
    def rc(self):
        return self.updates["rc"]

    @property
    def completed(self):
        return sum(batch.complete for batch in self.batches)

    @property
    def failure(self):
        return self.batches[-1].failure()


class Writer:
    """In the place of a FileWriterProxy."""

    def __init__(self, failing=None, stuck=False, takes_compressed=False):
        self.takes_compressed = takes_compressed
        self.calls = []
        self.data = b""
        self.aborted = None
        self.written = trio.Event()
        self._failing = failing
        self._stuck = stuck

    async def callRemote(self, message, *args):
        await trio.lowlevel.checkpoint()
        if message == self._failing:
            raise RemoteError("OSError", "the master's disk is full")
        self.calls.append((message, *args) if message != "write" else (message,))
        if message == "write":
            self.data += bytes(args[0])
            self.written.set()
            if self._stuck:
                await trio.sleep_forever()

    async def send(self, source):
        digest = Blake3()
        while (block := await source.read_block(digest)) is not None:
            await self.callRemote("write", Batch.parse(block).chunk_bytes())
        assert digest.length == len(self.data)

    async def abort(self, reason):
        await trio.lowlevel.checkpoint()
        self.aborted = reason


class Reader:
    """In the place of a FileReaderProxy."""

    def __init__(self, data=b"", failing_after=None, stuck=False):
        self._data = data
        self._at = 0
        self._failing_after = failing_after
        self._stuck = stuck
        self.closed = False
        self.asked = trio.Event()

    async def callRemote(self, message, *args):
        await trio.lowlevel.checkpoint()
        if message == "close":
            self.closed = True
            return None
        self.asked.set()
        (most,) = args
        if self._failing_after is not None and self._at >= self._failing_after:
            raise RemoteError("ValueError", "the digests differ")
        piece = self._data[self._at : self._at + most]
        self._at += len(piece)
        if not piece and self._stuck:
            await trio.sleep_forever()
        return piece

    async def receive(self, sink):
        digest = Blake3()
        while piece := await self.callRemote("read", 1 << 20):
            await sink.write_batch(Batch.parse(chunk_records(piece)), digest)
        await sink.written()
        assert digest.length == len(self._data)


class Desk:
    """One attachment with one builder `b`, whose directory is `dir`."""

    Report = Report
    Writer = Writer
    Reader = Reader

    def __init__(self, worker, attachment, basedir):
        self.worker = worker
        self.attachment = attachment
        self.basedir = basedir
        self.dir = basedir / "b"
        self._commands = 0

    async def start(self, name, args, *, command=None, report=None):
        self._commands += 1
        report = report or Report()
        await self.attachment.startCommand("b", command or str(self._commands), name, args, report)
        return report

    async def run(self, name, **args):
        report = await self.start(name, args)
        with trio.fail_after(30):
            await report.done.wait()
        return report

    async def interrupt(self, why="enough"):
        await self.attachment.interruptCommand("b", str(self._commands), why)

    async def ended(self, report):
        with trio.fail_after(30):
            await report.done.wait()
        return report


@asynccontextmanager
async def opened_desk(basedir, manners=None, limits=None):
    basedir.mkdir(exist_ok=True)
    async with open_worker(basedir, manners or Manners(), limits or Limits()) as worker:
        attachment = worker.attachment()
        await attachment.setBuilderList([("b", "b")])
        yield Desk(worker, attachment, basedir)


@pytest.fixture
async def desk(tmp_path):
    async with opened_desk(tmp_path / "worker") as opened:
        yield opened


@pytest.fixture
def open_desk():
    """For tests that need a desk with other settings: `async with open_desk(basedir, manners, limits)`."""
    return opened_desk
