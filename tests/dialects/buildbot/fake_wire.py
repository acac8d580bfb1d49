"""A wire that carries calls as they are: the worker's streams and the master's, and nothing between them."""

from __future__ import annotations

from collections import deque

from tailrace._core import Blake3, Journal, chunk_records, close_record
from tailrace.dialects.buildbot.streams import MasterStreams, Style, WorkerStreams

MIB = 1 << 20


class End:
    """One side: what it emitted, and for the worker what it called."""

    def __init__(self, fake):
        self.fake = fake
        self.events = deque()

    def emit(self, event):
        self.events.append(event)

    def send(self, call):
        self.fake.handle += 1
        self.fake.calls.append((self.fake.handle, call))
        self.fake.said.append(call)
        return self.fake.handle

    def answer(self, handle, value):
        self.fake.answers.append((handle, value))

    def refuse(self, handle, kind, text):
        self.fake.failures.append((handle, kind, text))


class FakeWire:
    """`turn` carries what was said, as long as somebody says something."""

    def __init__(self, *, style=None, window_bytes=4 * MIB, unsettled_max=32 * MIB):
        self.handle = 0
        self.calls, self.answers, self.failures, self.said = deque(), deque(), deque(), []
        self.master_end, self.worker_end = End(self), End(self)
        self.worker = WorkerStreams(self.worker_end, style or Style())
        self.master = MasterStreams(
            self.master_end, lambda: (5_000_000, 7), window_bytes=window_bytes, unsettled_max=unsettled_max
        )

    def turn(self):
        while self.calls or self.answers or self.failures:
            if self.calls:
                self.master.called(*self.calls.popleft())
            while self.answers:
                self.worker.answered(*self.answers.popleft())
            while self.failures:
                self.worker.failed(*self.failures.popleft())

    def master_events(self):
        self.turn()
        events = list(self.master_end.events)
        self.master_end.events.clear()
        return events

    def worker_events(self):
        self.turn()
        events = list(self.worker_end.events)
        self.worker_end.events.clear()
        return events


def journal(*entries, failure=None, finish=True):
    """A journal of (channel, data) and of dicts."""
    made = Journal()
    for entry in entries:
        if isinstance(entry, dict):
            made.update(entry)
        else:
            made.append(entry[0], entry[1], 1_000_000, 1, *entry[2:])
    if finish:
        made.finish(failure)
    return made


def file_records(data, *extra):
    """A whole file."""
    digest = Blake3()
    digest.update(data)
    return chunk_records(data) + b"".join(extra) + close_record(digest.length, digest.digest())
