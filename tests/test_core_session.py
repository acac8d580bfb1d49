"""Two sessions of the native wire talk to each other, as Python sees them."""

from __future__ import annotations

import socket
from contextlib import contextmanager

import pytest

from tailrace._core import (
    Blake3,
    BlockReader,
    Called,
    CallFailed,
    Journal,
    LoggedIn,
    LoginAsked,
    PeerClosed,
    Refused,
    Replied,
    Session,
    StreamOpened,
    StreamProgress,
    StreamReadable,
    StreamReset,
    StreamStopped,
    StreamWritable,
    chunk_records,
    close_record,
    decode_value,
    encode_value,
)
from tailrace.errors import LocalProtocolError, RemoteProtocolError


class Pair:
    """A worker and a master on a wire that loses nothing."""

    def __init__(self, secret=b"secret", **master):
        self.worker = Session("worker", id="instance", nonce=b"w" * 32, name="w1", secret=secret, software="test")
        self.master = Session("master", id="master", nonce=b"m" * 32, **master)

    def pump(self):
        """Carries bytes until there are no more. Returns (worker's events, master's events)."""
        events = [], []
        moved = True
        while moved:
            moved = False
            for heard, here, there in (events[1], self.worker, self.master), (events[0], self.master, self.worker):
                while data := here.data_to_send():
                    there.receive_data(data)
                    moved = True
                heard.extend(drain(there))
            events[0].extend(drain(self.worker))
        return events

    def log_in(self):
        self.pump()
        assert self.master.admit(b"secret")
        self.pump()
        return self


def drain(session):
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


@pytest.fixture
def pair():
    return Pair().log_in()


def test_a_login_tells_both_sides_who_the_other_is():
    pair = Pair()
    (_, [asked]) = pair.pump()
    assert isinstance(asked, LoginAsked)
    assert (asked.name, asked.instance, asked.software, asked.capabilities) == ("w1", "instance", "test", [])
    assert pair.master.admit(b"secret") is True
    ([at_worker], [at_master]) = pair.pump()
    assert isinstance(at_worker, LoggedIn)
    assert isinstance(at_master, LoggedIn)
    assert (at_worker.peer, at_master.peer, at_worker.version) == ("master", "instance", 1)


@pytest.mark.parametrize("known", [b"another", b""])
def test_a_wrong_secret_and_an_unknown_name_are_refused_in_the_same_words(known):
    pair = Pair()
    pair.pump()
    assert pair.master.admit(known) is False
    assert pair.master.eof_to_send
    ([refused], []) = pair.pump()
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.text) == ("credentials", "unknown worker or wrong secret")
    assert pair.worker.eof_to_send


def test_a_refusal_is_told_to_the_worker():
    pair = Pair()
    pair.pump()
    pair.master.refuse("duplicate", "w1 is attached")
    ([refused], []) = pair.pump()
    assert (refused.reason, refused.text) == ("duplicate", "w1 is attached")


def test_a_call_is_answered(pair):
    args = {"message": "hé", "numbers": [1, -2, 2.5, None, True], "raw": b"\0"}
    call = pair.master.call("print", args)
    ([called], []) = pair.pump()
    assert isinstance(called, Called)
    assert (called.call, called.method, called.args) == (call, "print", args)
    pair.worker.reply(call, ["done"])
    ([], [replied]) = pair.pump()
    assert isinstance(replied, Replied)
    assert (replied.call, replied.value) == (call, ["done"])


def test_a_call_fails_with_type_and_text(pair):
    call = pair.master.call("startCommand", {})
    pair.pump()
    pair.worker.fail(call, "UnknownCommand", "no\nsuch thing")
    ([], [failed]) = pair.pump()
    assert isinstance(failed, CallFailed)
    assert (failed.call, failed.type, failed.text) == (call, "UnknownCommand", "no such thing")


def test_large_arguments_arrive_whole(pair):
    args = {"env": {f"K{n}": "v" * 100 for n in range(5000)}}
    call = pair.master.call("startCommand", args)
    ([called], []) = pair.pump()
    assert called.args == args
    pair.worker.reply(call, "x" * 1_000_000)
    ([], [replied]) = pair.pump()
    assert replied.value == "x" * 1_000_000
    assert pair.master.statistics()["streams"] == pair.worker.statistics()["streams"] == 0


def test_a_journal_crosses_as_batches_until_it_is_durable(pair):
    journal = Journal()
    journal.append("stdout", b"one\ntwo\n", 1, 1)
    stream = pair.worker.open("journal", "command")
    assert pair.worker.write_journal(stream, journal) == journal.end
    ([], [opened, readable]) = pair.pump()
    assert isinstance(opened, StreamOpened)
    assert isinstance(readable, StreamReadable)
    assert (opened.role, opened.name, opened.offset) == ("journal", "command", 0)
    batch = pair.master.take(stream, 1 << 20)
    assert (batch.start, batch.end) == (0, journal.end)
    assert batch.channel_bytes("stdout") == b"one\ntwo\n"
    assert pair.master.take(stream, 1 << 20) is None
    pair.master.settle(stream, batch.end, 0)
    ([progress], []) = pair.pump()
    assert isinstance(progress, StreamProgress)
    assert (progress.next, progress.durable, progress.done) == (batch.end, 0, False)

    journal.finish()
    pair.worker.write_journal(stream, journal)
    pair.worker.end(stream)
    ([], [readable]) = pair.pump()
    batch = pair.master.take(stream, 1 << 20)
    assert batch.complete
    assert pair.master.ended(stream)
    pair.master.settle(stream, batch.end, batch.end)
    ([progress], []) = pair.pump()
    assert (progress.next, progress.durable, progress.done) == (journal.end, journal.end, True)


def test_sockets_carry_what_is_said(pair):
    with socketpair() as (here, there):
        journal = Journal()
        journal.append("stdout", b"x" * 1_000_000 + b"\n", 1, 1)
        stream = pair.worker.open("journal", "command")
        pair.worker.write_journal(stream, journal)
        got = bytearray()
        while len(got) <= 1_000_000:
            pair.worker.send_to(here.fileno(), 100_000)
            pair.master.receive_from(there.fileno(), 100_000)
            if (batch := pair.master.take(stream, 1 << 20)) is not None:
                got += batch.channel_bytes("stdout")
                pair.master.settle(stream, batch.end, batch.end)
            pair.master.send_to(there.fileno(), 100_000)
            pair.worker.receive_from(here.fileno(), 100_000)
        assert got == b"x" * 1_000_000 + b"\n"
        assert pair.master.receive_from(there.fileno(), 1 << 20) is None  # nothing yet
        assert pair.worker.send_to(here.fileno(), 1 << 20)  # nothing to send
        here.close()
        assert pair.master.receive_from(there.fileno(), 1 << 20) == 0  # the end


def test_a_socket_that_is_none_is_an_oserror_and_loses_nothing(pair):
    call = pair.master.call("print", {"text": "x"})
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair.master.send_to(-1, 1 << 20)
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair.master.receive_from(-1, 1 << 20)
    ([called], []) = pair.pump()
    assert (called.call, called.args) == (call, {"text": "x"})


@contextmanager
def socketpair():
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        yield here, there


def test_a_download_crosses_with_its_chunks(pair):
    stream = pair.master.open("download", "command")
    pair.master.write(stream, chunk_records(b"data") + close_record(4, b"\0" * 32))
    pair.master.end(stream)
    ([_, _], []) = pair.pump()
    batch = pair.worker.take(stream, 1 << 20)
    assert batch.chunk_bytes() == b"data"
    assert batch.close() == (4, b"\0" * 32)
    assert pair.worker.ended(stream)


def test_a_stopped_stream_is_reset_by_its_sender(pair):
    stream = pair.worker.open("upload", "command")
    pair.worker.write(stream, chunk_records(b"x" * 100_000))
    pair.pump()
    pair.master.stop(stream, "disk full")
    ([stopped], []) = pair.pump()
    assert isinstance(stopped, StreamStopped)
    assert (stopped.stream, stopped.reason) == (stream, "disk full")
    assert pair.worker.room(stream) == 0
    assert pair.master.take(stream, 1 << 20) is None
    assert pair.master.statistics()["streams"] == pair.worker.statistics()["streams"] == 0


def test_a_reset_stream_is_told_to_its_receiver(pair):
    stream = pair.worker.open("upload", "command")
    pair.worker.write(stream, chunk_records(b"x"))
    pair.pump()
    pair.worker.reset(stream, "interrupted")
    ([], [reset]) = pair.pump()
    assert isinstance(reset, StreamReset)
    assert reset.reason == "interrupted"


def test_a_full_queue_is_writable_again_when_its_bytes_were_sent(pair):
    stream = pair.worker.open("journal", "command")
    room = pair.worker.room(stream)
    pair.worker.write(stream, chunk_records(b"x" * (room - 5)))
    assert pair.worker.room(stream) == 0
    (events, _) = pair.pump()
    assert any(isinstance(event, StreamWritable) and event.stream == stream for event in events)
    assert pair.worker.room(stream) > 0


def test_garbage_is_reported_after_what_came_before_it_and_for_ever(pair):
    call = pair.master.call("print", {"message": "last words"})
    data = pair.master.data_to_send()
    pair.worker.receive_data(data + b"\x7f\0\0\0nonsense")
    event = pair.worker.next_event()
    assert isinstance(event, Called)
    assert event.call == call
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="0x7f"):
            pair.worker.next_event()
    assert pair.worker.eof_to_send
    pair.master.receive_data(pair.worker.data_to_send())
    [closed] = drain(pair.master)
    assert isinstance(closed, PeerClosed)
    assert closed.reason == "protocol"


def test_a_stranger_on_the_port_learns_nothing():
    master = Session("master", id="master", nonce=b"m" * 32)
    master.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(RemoteProtocolError, match="TAILRACE"):
        master.next_event()
    assert master.eof_to_send
    assert master.data_to_send() == b""


def test_the_end_of_the_transport_is_told_once(pair):
    pair.worker.receive_eof()
    pair.worker.receive_eof()
    [closed] = drain(pair.worker)
    assert (closed.reason, closed.text) == ("eof", "")


def test_close_says_why(pair):
    pair.master.close("shutdown", "for the night")
    assert pair.master.eof_to_send
    ([closed], []) = pair.pump()
    assert (closed.reason, closed.text) == ("shutdown", "for the night")
    with pytest.raises(LocalProtocolError, match="over"):
        pair.master.call("print", {})


def test_a_block_goes_from_where_the_stream_stands(pair, tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        block = BlockReader().read(file.fileno(), Blake3())
    stream = pair.worker.open("upload", "command")
    pair.worker.write(stream, memoryview(block)[:7])
    pair.worker.write_block(stream, block, 7)
    assert pair.worker.sent(stream) == len(block)
    pair.worker.write_block(stream, block)
    pair.pump()
    assert pair.master.take(stream, 1000).chunk_bytes() == b"0123456789" * 2
    pair.worker.write_block(stream, block, len(block) + 1)
    assert pair.worker.sent(stream) == 2 * len(block)


def test_what_may_not_be_asked_is_refused_before_a_byte_is_made(pair):
    for wrong in (
        lambda: pair.master.open("journal", "command"),
        lambda: pair.worker.open("download", "command"),
        lambda: pair.worker.open("message", "command"),
        lambda: pair.worker.reply(7, None),
        lambda: pair.worker.write(1, b"x"),
        lambda: pair.worker.call("held", {"x": 1 << 63}),
        lambda: pair.worker.call("held", {"x": object()}),
        lambda: pair.master.admit(b"secret"),
    ):
        with pytest.raises(LocalProtocolError):
            wrong()
    assert pair.worker.data_to_send() == pair.master.data_to_send() == b""


def test_values_cross_and_come_back():
    value = {"a": [None, True, -1, 1 << 40, 1.5, "é", b"\xff", (1, 2)], "b": {}}
    assert decode_value(encode_value(value)) == {"a": [None, True, -1, 1 << 40, 1.5, "é", b"\xff", [1, 2]], "b": {}}


@pytest.mark.parametrize("value", [1 << 63, {1: 2}, object(), "\ud800", {"a": {3}}])
def test_what_is_no_value_is_refused(value):
    with pytest.raises(LocalProtocolError):
        encode_value(value)


@pytest.mark.parametrize(
    "data", ["", "c1", "ca00000000", "92c0", "82a161c0a161c0", "c0c0", "cfffffffffffffffff", "a1ff"]
)
def test_bytes_that_are_no_value_are_refused(data):
    with pytest.raises(RemoteProtocolError):
        decode_value(bytes.fromhex(data))
