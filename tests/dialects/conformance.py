"""What every dialect does, on both sides: said once, run for each wire, with the bytes whole and one by one.

A test file of a wire makes two dialects with a fake wire between them (`Pair`) and calls `check_dialect`. Wires without
offsets make their streams of a command's calls: so each stream here belongs to a command that was started, and what one
side counts is not what the other counts.
"""

from __future__ import annotations

from tailrace._core import Blake3, Journal, chunk_records, close_record
from tailrace.messages import (
    Called,
    CallFailed,
    Held,
    LoggedIn,
    LoginAsked,
    PeerClosed,
    Ponged,
    Print,
    Refused,
    Replied,
    SetBuilderList,
    StartCommand,
    StreamOpened,
    StreamProgress,
    StreamReadable,
    StreamReset,
    StreamStopped,
)

BIG = 1 << 20


class Pair:
    """Two dialects and the wire between them, which carries `step` bytes at a time (0: all that there is)."""

    def __init__(self, master, worker, secret, step):
        self.master, self.worker, self.secret, self.step = master, worker, secret, step
        self.events = {master: [], worker: []}

    def turn(self):
        """Until nobody has anything to say."""
        while self._carry(self.worker, self.master) | self._carry(self.master, self.worker):
            pass

    def events_of(self, side):
        """What it was told since the last time."""
        self.turn()
        events, self.events[side] = self.events[side], []
        return events

    def log_in(self):
        [asked] = self.events_of(self.master)
        assert isinstance(asked, LoginAsked)
        assert self.master.admit(self.secret)
        at_master, *held = self.events_of(self.master)
        if held:
            # A wire that makes it of its login: the worker is taken.
            self.worker.call(Held(()))
            self.master.reply(held[0].call, None)
        at_worker = self.events_of(self.worker)[0]
        assert isinstance(at_master, LoggedIn)
        assert isinstance(at_worker, LoggedIn)
        self.events_of(self.master)
        return asked, at_master, at_worker

    def answer(self, request, value=None):
        """The master calls, the worker returns."""
        call = self.master.call(request)
        for event in self.events_of(self.worker):
            if isinstance(event, Called):
                self.worker.reply(event.call, value)
        assert Replied(call, value) in self.events_of(self.master)

    def begin(self, command="7", **impls):
        """A command that runs."""
        self.answer(SetBuilderList((("b", "dir"),)), ["b"])
        name = {"writer": "uploadFile", "reader": "downloadFile"}.get(next(iter(impls), ""), "shell")
        self.answer(StartCommand(builder="b", command=command, name=name, args={}, impls=impls))

    def finish(self, rc, command="7"):
        """The worker says how the command went."""
        journal = Journal()
        journal.update({"rc": rc})
        journal.finish()
        stream = self.worker.open("journal", command)
        self.worker.write_journal(stream, journal)
        self.worker.end(stream)

    def _carry(self, source, target):
        data = source.data_to_send(BIG)
        for start in range(0, len(data), self.step or len(data) or 1):
            target.receive_data(data[start : start + (self.step or len(data))])
            self._drain(target)
        self._drain(source)
        return bool(data)

    def _drain(self, side):
        while (event := side.next_event()) is not None:
            self.events[side].append(event)


def check_dialect(make_pair):
    """`make_pair()` makes a new, connected pair."""
    for check in CHECKS:
        check(make_pair())


def a_login_proves_both_sides(pair):
    asked, at_master, at_worker = pair.log_in()
    assert asked.name == "w1"
    assert at_master.peer == asked.instance
    assert at_worker.peer


def a_wrong_secret_is_refused(pair):
    pair.turn()
    assert not pair.master.admit(b"wrong")
    [refused] = pair.events_of(pair.worker)
    assert isinstance(refused, Refused)
    assert refused.reason == "credentials"
    assert pair.master.eof_to_send


def a_refusal_says_why(pair):
    pair.turn()
    pair.master.refuse("not now", "try later")
    assert pair.events_of(pair.worker) == [Refused("not now", "try later")]


def a_call_is_answered_once(pair):
    pair.log_in()
    one, two = pair.master.call(Print("one")), pair.master.call(Print("two"))
    calls = pair.events_of(pair.worker)
    assert [event.request for event in calls if isinstance(event, Called)] == [Print("one"), Print("two")]
    pair.worker.reply(calls[1].call, {"b": [1, 2.5, None, b"x"]})
    pair.worker.fail(calls[0].call, "OSError", "no")
    assert pair.events_of(pair.master) == [Replied(two, {"b": [1, 2.5, None, b"x"]}), CallFailed(one, "OSError", "no")]


def a_journal_is_taken_settled_and_done(pair):
    pair.log_in()
    pair.begin()
    journal = Journal()
    journal.append("stdout", b"line\n", 1, 1)
    journal.update({"rc": 0})
    journal.finish()
    stream = pair.worker.open("journal", "7")
    assert pair.worker.write_journal(stream, journal) == journal.end == pair.worker.sent(stream)
    pair.worker.end(stream)
    opened, *readable = pair.events_of(pair.master)
    assert opened == StreamOpened(opened.stream, "journal", "7", 0)
    assert StreamReadable(opened.stream) in readable
    batch = pair.master.take(opened.stream, BIG)
    assert (batch.start, batch.channel_bytes("stdout")) == (0, b"line\n")
    assert batch.end == journal.end or not pair.master.traits.offsets
    assert batch.updates() == {"rc": 0}
    assert pair.master.take(opened.stream, BIG) is None
    assert pair.master.ended(opened.stream)
    assert not [event for event in pair.events_of(pair.worker) if isinstance(event, StreamProgress) and event.done]
    pair.master.settle(opened.stream, batch.end, batch.end)
    assert pair.events_of(pair.worker)[-1] == StreamProgress(stream, journal.end, journal.end, True)


def a_stream_does_not_outrun_its_credit(pair):
    pair.log_in()
    pair.begin(writer="FileWriter")
    stream = pair.worker.open("upload", "7")
    payload = chunk_records(bytes(64 << 10))
    sent = 0
    while (room := pair.worker.room(stream)) >= len(payload) and sent < 64 * BIG:
        pair.worker.write(stream, payload)
        sent += len(payload)
        pair.turn()
    assert sent < 64 * BIG
    [opened] = [event for event in pair.events_of(pair.master) if isinstance(event, StreamOpened)]
    while (batch := pair.master.take(opened.stream, 64 * BIG)) is not None:
        pair.master.settle(opened.stream, batch.end, 0)
    pair.turn()
    assert pair.worker.room(stream) > room


def both_ways_at_once(pair):
    pair.log_in()
    pair.begin(writer="FileWriter")
    pair.begin("8", reader="FileReader")
    digest = Blake3()
    digest.update(b"data")
    file = chunk_records(b"data") + close_record(4, digest.digest())
    up, down = pair.worker.open("upload", "7"), pair.master.open("download", "8")
    for side, stream in ((pair.worker, up), (pair.master, down)):
        side.write(stream, file)
        side.end(stream)
    for side, role in ((pair.worker, "download"), (pair.master, "upload")):
        opened = next(event for event in pair.events_of(side) if isinstance(event, StreamOpened) and event.role == role)
        batch = side.take(opened.stream, BIG)
        assert batch.chunk_bytes() == b"data"
        side.settle(opened.stream, batch.end, batch.end)
        if (close := batch.close()) is None:
            # Where a worker closes also what it could not read, its rc says whether that is the end.
            pair.turn()
            pair.finish(0)
            pair.turn()
            close = side.take(opened.stream, BIG).close()
        assert close == (4, digest.digest())


def a_sender_may_give_up(pair):
    pair.log_in()
    pair.begin(writer="FileWriter")
    stream = pair.worker.open("upload", "7")
    pair.worker.write(stream, chunk_records(b"data"))
    opened = pair.events_of(pair.master)[0]
    pair.worker.reset(stream, "disk error")
    pair.finish(1)
    resets = [event for event in pair.events_of(pair.master) if isinstance(event, StreamReset)]
    assert [event.stream for event in resets] == [opened.stream]
    assert resets[0].reason == "disk error" or not pair.master.traits.offsets


def a_receiver_may_give_up(pair):
    pair.log_in()
    pair.begin(writer="FileWriter")
    stream = pair.worker.open("upload", "7")
    pair.worker.write(stream, chunk_records(b"data"))
    opened = pair.events_of(pair.master)[0]
    pair.master.stop(opened.stream, "disk full")
    [stopped] = [event for event in pair.events_of(pair.worker) if isinstance(event, StreamStopped)]
    assert stopped.stream == stream
    assert stopped.reason.endswith("disk full")


def a_ping_comes_back(pair):
    pair.log_in()
    pair.master.ping(5)
    assert pair.events_of(pair.master) == [Ponged(5)]


def a_goodbye_says_why(pair):
    pair.log_in()
    pair.master.close("bye", "good night")
    events = pair.events_of(pair.worker)
    # Where there is no goodbye, it is what the worker's log hears last.
    assert events == [PeerClosed("bye", "good night")] or "good night" in events[-1].request.message
    assert pair.master.eof_to_send


def an_end_without_goodbye_is_told(pair):
    pair.log_in()
    pair.worker.receive_eof()
    assert pair.events_of(pair.worker) == [PeerClosed("eof", "")]


CHECKS = (
    a_login_proves_both_sides,
    a_wrong_secret_is_refused,
    a_refusal_says_why,
    a_call_is_answered_once,
    a_journal_is_taken_settled_and_done,
    a_stream_does_not_outrun_its_credit,
    both_ways_at_once,
    a_sender_may_give_up,
    a_receiver_may_give_up,
    a_ping_comes_back,
    a_goodbye_says_why,
    an_end_without_goodbye_is_told,
)
