"""Streams made of calls, without any wire: both sides, and what each of Buildbot's own ends would do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import Journal, chunk_records, unpack_record, utime_record
from tailrace.dialects.buildbot.calls import (
    CloseReader,
    CloseWriter,
    Complete,
    Item,
    Read,
    Text,
    Unpack,
    Update,
    Utime,
    Write,
)
from tailrace.dialects.buildbot.lines import LineStyle
from tailrace.dialects.buildbot.receiving import _by_time
from tailrace.dialects.buildbot.streams import Style
from tailrace.errors import LocalProtocolError
from tailrace.messages import (
    StreamOpened,
    StreamProgress,
    StreamReadable,
    StreamReset,
    StreamStopped,
    StreamWritable,
)

from .fake_wire import MIB, FakeWire, file_records, journal


def send_journal(fake, source, command="7"):
    stream = fake.worker.open("journal", command)
    while fake.worker.sent(stream) < source.end:
        if not fake.worker.write_journal(stream, source):
            fake.turn()
    fake.worker.end(stream)
    return stream


def opened(events, role):
    [event] = [event for event in events if isinstance(event, StreamOpened) and event.role == role]
    return event.stream


def take_all(fake, stream):
    batches = []
    while (batch := fake.master.take(stream, 64 * MIB)) is not None:
        batches.append(batch)
    return batches


# ---------------------------------------------------------------- journals


def test_a_journal_crosses_and_its_answers_are_its_progress():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    source = journal(("stdout", b"a\nb\n"), ("stderr", b"e\n"), {"rc": 3, "elapsed": 0.5}, failure=("OSError", "no"))
    sent = send_journal(fake, source)
    events = fake.master_events()
    stream = opened(events, "journal")
    assert StreamReadable(stream) in events
    assert fake.worker_events() == []
    [batch] = take_all(fake, stream)
    assert [bytes(record) for record in batch.records()] == [b"a\nb\n", b"e\n"]
    assert batch.updates() == {"rc": 3, "elapsed": 0.5}
    assert batch.failure() == ("OSError", "no")
    assert batch.receipt() is not None
    assert fake.master.ended(stream)
    fake.master.settle(stream, batch.end, 0)
    assert fake.worker_events()[-1] == StreamProgress(sent, source.end, source.end, True)
    assert "7" not in fake.master
    assert fake.master.unsettled == len(fake.master) == len(fake.worker) == 0


def test_each_line_has_the_workers_time_of_its_piece():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    send_journal(fake, journal(("stdout", b"a\n")))
    [batch] = take_all(fake, opened(fake.master_events(), "journal"))
    assert batch.records()[0].times == [1.0]


def test_each_line_has_the_time_that_the_worker_says():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    for text, times in (
        ("a\nb\nc\r\nd", [1.0, 1.0, 2.0, 3.0]),
        ("d\ne\nf\n", [4.0, 5.0]),
        ("g\nh\ni\n", [6.0, 7.0]),
    ):
        fake.master.called(1, Update("7", (Text("stdout", None, text, times),)))
    [batch] = take_all(fake, opened(fake.master_events(), "journal"))
    assert batch.channel_bytes("stdout") == b"a\nb\nc\r\ndd\ne\nf\ng\nh\ni\n"
    times = [time for record in batch.records() for time in record.times]
    assert times == [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.0]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=80), st.booleans(), st.booleans())
def test_lines_are_split_by_their_times(seconds, inside, finished):
    times = [float(second) for second in sorted(seconds)]
    lines = [b"%d" % index * (index % 5) + b"\n" for index in range(len(times) + inside)]
    data = b"".join(lines) if finished else b"".join(lines)[:-1] + b"x"
    pieces = list(_by_time(data, times, inside))
    assert b"".join(piece for piece, _ in pieces) == data
    expected = [times[0]] * inside + times
    got = [at / 1e6 for piece, at in pieces for _ in piece.splitlines()]
    assert got == expected
    assert len(pieces) == len(set(times))
    assert len(list(_by_time(data, [time / 10_000 for time in times], inside))) == 1


def test_what_comes_without_times_has_the_time_of_its_arrival():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    fake.master.called(1, Update("7", (Text("log", "l1", b"\xffraw"), Text("stdout", None, memoryview(b"a\n")))))
    [batch] = take_all(fake, opened(fake.master_events(), "journal"))
    raw, seen = batch.records()
    assert (raw.name, raw.data, raw.time) == ("l1", b"\xffraw", 5.0)
    assert (seen.data, seen.time) == (b"a\n", 5.0)


def test_an_update_that_was_not_settled_is_not_answered():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    fake.master.called(1, Update("7", (Text("stdout", None, "a\n"),)))
    fake.master.called(2, Update("7", (Text("stdout", None, "b\n"),)))
    stream = opened(fake.master_events(), "journal")
    first = fake.master.take(stream, 1)
    fake.master.take(stream, MIB)
    fake.master.settle(stream, first.end, first.end)
    assert list(fake.answers) == [(1, None)]


def test_a_master_that_is_too_far_behind_wants_no_more():
    fake = FakeWire(unsettled_max=1000)
    fake.master.begin("7", writes=True, reads=False)
    fake.master.called(1, Update("7", (Text("stdout", None, "x" * 600),)))
    assert not fake.master.paused
    fake.master.called(2, Write("7", b"x" * 600))
    assert fake.master.paused
    stream = opened(fake.master_events(), "journal")
    fake.master.settle(stream, take_all(fake, stream)[-1].end, 0)
    assert not fake.master.paused


def test_a_worker_bounds_what_is_unanswered_and_hears_of_room():
    fake = FakeWire(style=Style(updates_max=2, update_bytes=1))
    fake.master.begin("7", writes=False, reads=False)
    source = journal(*[("stdout", b"line\n")] * 10)
    stream = fake.worker.open("journal", "7")
    while fake.worker.write_journal(stream, source):
        pass
    assert fake.worker.room(stream) == 0
    assert len(fake.said) == 2
    there = opened(fake.master_events(), "journal")
    fake.master.settle(there, take_all(fake, there)[-1].end, 0)
    assert StreamWritable(stream) in fake.worker_events()
    assert fake.worker.room(stream) > 0


def test_what_gathers_goes_in_one_call_and_neighbours_are_one_text():
    fake = FakeWire()
    send_journal(fake, journal(*[("stdout", b"line\n")] * 3, ("stderr", b"e\n"), {"rc": 0}))
    [update, complete] = fake.said
    assert update == Update(
        "7", (Text("stdout", None, "line\n" * 3, [1.0] * 3), Text("stderr", None, "e\n", [1.0]), Item("rc", 0))
    )
    assert complete == Complete("7", None)


def test_an_unfinished_line_waits_and_does_not_hold_the_journal_up():
    fake = FakeWire()
    source = journal(("stdout", b"prompt> "), finish=False)
    stream = fake.worker.open("journal", "7")
    assert fake.worker.write_journal(stream, source) == source.end
    assert not fake.said
    assert fake.worker_events() == [StreamProgress(stream, source.end, source.end, False)]
    source.update({"rc": 0})
    fake.worker.write_journal(stream, source)
    [update] = fake.said
    assert update.elements == (Text("stdout", None, "prompt> \n", (1.0,)), Item("rc", 0))


def test_a_peer_of_ours_gets_a_prompt_at_once():
    fake = FakeWire(style=Style(lines=LineStyle(whole=False)))
    stream = fake.worker.open("journal", "7")
    fake.worker.write_journal(stream, journal(("stdout", b"prompt> "), finish=False))
    assert fake.said == [Update("7", (Text("stdout", None, "prompt> ", [1.0]),))]


def test_one_refused_update_does_not_end_a_command():
    fake = FakeWire()
    stream = fake.worker.open("journal", "7")
    source = journal(("stdout", b"a\n"), finish=False)
    fake.worker.write_journal(stream, source)
    fake.worker.failed(1, "RemoteError", "the database is away")
    assert fake.worker_end.events.pop() == StreamProgress(stream, source.end, source.end, False)
    assert fake.worker.room(stream)


def test_a_command_that_the_master_does_not_know_is_stopped():
    fake = FakeWire()
    stream = send_journal(fake, journal(("stdout", b"a\n")))
    assert StreamStopped(stream, "UnknownCommand: there is no command '7'") in fake.worker_events()
    with pytest.raises(LocalProtocolError):
        fake.worker.sent(stream)


def test_a_journal_that_is_given_up_completes_with_a_failure():
    fake = FakeWire()
    stream = fake.worker.open("journal", "7")
    fake.worker.write_journal(stream, journal(("stdout", b"a\n"), finish=False))
    fake.worker.reset(stream, "Cancelled: the worker gave up")
    assert fake.said[-1] == Complete("7", ("Cancelled", "the worker gave up"))


def test_a_journal_that_link_refuses_is_refused_to_the_worker():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    fake.master.called(1, Update("7", (Text("stdout", None, "a\n"),)))
    fake.master.stop(opened(fake.master_events(), "journal"), "LocalProtocolError: no")
    fake.master.called(2, Complete("7", None))
    assert [failure[1:] for failure in fake.failures] == [("LocalProtocolError", "no")] * 2
    assert "7" not in fake.master
    assert fake.master.unsettled == 0


@pytest.mark.parametrize(
    "element", [Text("stdout", None, "a", [float("nan")]), Text("nowhere", None, "a"), Item("rc", 1 << 70)]
)
def test_what_no_journal_can_hold_is_refused(element):
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    fake.master.called(1, Update("7", (element,)))
    assert len(fake.failures) == 1


# ---------------------------------------------------------------- uploads


def upload(fake, *records, rc=0, command="7"):
    stream = fake.worker.open("upload", command)
    for record in records:
        fake.worker.write(stream, record)
    fake.worker.end(stream)
    return stream


def test_a_file_is_uploaded_with_its_times():
    fake = FakeWire(style=Style(block_bytes=1000))
    fake.master.begin("7", writes=True, reads=False)
    data = bytes(range(256)) * 10
    sent = upload(fake, file_records(data, utime_record(1.5, 2.5)))
    there = opened(fake.master_events(), "upload")
    [batch] = take_all(fake, there)
    assert batch.chunk_bytes() == data
    assert not fake.master.ended(there)
    fake.master.settle(there, batch.end, 0)
    # All is answered: now the worker says that it went well, and the file is put in its place.
    assert fake.worker_events()[-1].done
    assert [type(call) for call in fake.said] == [Write] * 3 + [CloseWriter, Utime]
    journal_out = send_journal(fake, journal({"rc": 0}))
    fake.turn()
    [batch] = take_all(fake, there)
    assert batch.utime() == (1.5, 2.5)
    assert batch.close()[0] == len(data)
    assert fake.master.ended(there)
    events = fake.master_events()
    assert not [event for event in events if isinstance(event, StreamOpened)]
    fake.master.settle(there, batch.end, batch.end)
    there = opened(fake.master_events(), "journal")
    [batch] = take_all(fake, there)
    assert batch.updates() == {"rc": 0}
    fake.master.settle(there, batch.end, batch.end)
    assert fake.worker_events()[-1].done
    assert sent != journal_out
    assert fake.master.unsettled == len(fake.master) == len(fake.worker) == 0


def test_a_directory_is_unpacked_and_not_closed():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    upload(fake, file_records(b"tar", unpack_record()))
    there = opened(fake.master_events(), "upload")
    fake.master.settle(there, take_all(fake, there)[-1].end, 0)
    fake.turn()
    assert [type(call) for call in fake.said] == [Write, Unpack]
    fake.master.called(99, Update("7", (Item("rc", 0),)))
    [batch] = take_all(fake, there)
    assert batch.unpack
    assert batch.close() is not None


def test_a_file_that_could_not_be_read_is_not_put_in_its_place():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    fake.master.called(1, CloseWriter("7"))
    fake.master.called(2, Utime("7", None, None))
    fake.master.called(3, Update("7", (Item("rc", 1), Text("stderr", None, "Cannot open file\n"))))
    assert [event.role for event in fake.master_events() if isinstance(event, StreamOpened)] == ["journal"]


def test_a_file_that_was_cut_is_reset():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    fake.master.called(1, Write("7", b"half"))
    there = opened(fake.master_events(), "upload")
    fake.master.called(2, CloseWriter("7"))
    fake.master.called(3, Update("7", (Item("rc", 1),)))
    assert StreamReset(there, "RemoteError: the worker says rc 1") in fake.master_events()
    assert [handle for handle, _ in fake.answers] == []


def test_an_empty_file_is_uploaded():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    fake.master.called(1, CloseWriter("7"))
    fake.master.called(2, Update("7", (Item("rc", 0),)))
    [batch] = take_all(fake, opened(fake.master_events(), "upload"))
    assert batch.close()[0] == 0


def test_a_file_that_the_master_could_not_keep_is_no_success():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    fake.master.called(1, Write("7", b"data"))
    there = opened(fake.master_events(), "upload")
    fake.master.called(2, CloseWriter("7"))
    fake.master.called(3, Update("7", (Item("rc", 0), Item("elapsed", 0.5))))
    fake.master.called(4, Complete("7", None))
    fake.master.stop(there, "OSError: disk full")
    stream = opened(fake.master_events(), "journal")
    [batch] = take_all(fake, stream)
    assert batch.updates() == {"rc": 1, "elapsed": 0.5}
    assert b"disk full" in batch.channel_bytes("stderr")
    assert fake.master.ended(stream)


def test_who_says_on_and_on_what_waits_is_refused():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=True)
    fake.master.called(1, CloseWriter("7"))
    for _ in range(3):
        fake.master.called(2, Update("7", (Item("rc", 0), Text("stdout", None, "x" * (MIB // 2)))))
    assert [failure[1] for failure in fake.failures] == ["LimitExceeded"]
    for _ in range(1025):
        fake.master.called(3, Read("7", 10))
    assert [failure[1] for failure in fake.failures] == ["LimitExceeded"] * 2


def test_calls_that_wait_count():
    fake = FakeWire(unsettled_max=100_000)
    fake.master.begin("7", writes=True, reads=False)
    fake.master.called(1, Write("7", b"x"))
    for _ in range(1000):
        fake.master.called(2, CloseWriter("7"))
    assert fake.master.paused
    stream = opened(fake.master_events(), "upload")
    fake.master.settle(stream, take_all(fake, stream)[-1].end, 0)
    assert fake.master.unsettled == 0


@pytest.mark.parametrize("rc", [0, 1])
def test_an_upload_that_was_given_up_has_rc_1_and_a_reason(rc):
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    fake.master.called(1, Write("7", b"data"))
    fake.master.stop(opened(fake.master_events(), "upload"), "OSError: disk full")
    fake.master.called(2, Update("7", (Item("rc", rc),)))
    fake.master.called(3, Complete("7", ("RemoteWorkerError", "disk full")))
    [batch] = take_all(fake, opened(fake.master_events(), "journal"))
    assert batch.updates() == {"rc": 1}
    assert b"disk full" in batch.channel_bytes("stderr")
    assert batch.failure() == ("RemoteWorkerError", "disk full")


def test_a_worker_hears_that_its_upload_is_not_wanted():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    stream = fake.worker.open("upload", "7")
    fake.worker.write(stream, chunk_records(b"data"))
    fake.master.stop(opened(fake.master_events(), "upload"), "OSError: disk full")
    assert fake.worker_events() == [StreamStopped(stream, "OSError: disk full")]


def test_a_master_that_cannot_take_the_times_has_the_data_all_the_same():
    fake = FakeWire()
    stream = upload(fake, file_records(b"data", utime_record(1, 2)))
    fake.worker.answered(1, None)
    fake.worker.answered(2, None)
    fake.worker.failed(3, "RemoteError", "takes 2 positional arguments")
    assert fake.worker_end.events.pop().done
    send_journal(fake, journal({"rc": 0}))
    [note, rc] = fake.said[3].elements
    assert "times" in note.text
    assert rc == Item("rc", 0)
    assert stream


def test_an_upload_of_a_command_without_a_file_is_refused():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=False)
    fake.master.called(1, Write("7", b"x"))
    fake.master.called(2, Read("7", 10))
    assert [failure[1] for failure in fake.failures] == ["LocalProtocolError"] * 2


def test_uploads_have_a_window():
    fake = FakeWire()
    fake.master.begin("7", writes=True, reads=False)
    stream = fake.worker.open("upload", "7")
    record = chunk_records(bytes(MIB))
    while (room := fake.worker.room(stream)) > 0:
        fake.worker.write(stream, record[:room])
        record = record[room:] or chunk_records(bytes(MIB))
        fake.turn()
    there = opened(fake.master_events(), "upload")
    fake.master.settle(there, take_all(fake, there)[-1].end, 0)
    assert StreamWritable(stream) in fake.worker_events()


# ---------------------------------------------------------------- downloads


def download(fake, data):
    """At the master, all that there is room for."""
    stream = fake.master.open("download", "7")
    records = file_records(data)
    sent = 0
    while sent < len(records):
        room = fake.master.room(stream)
        assert room
        fake.master.write(stream, records[sent : sent + room])
        sent += room
    fake.master.end(stream)
    return stream


@pytest.mark.parametrize("reads_first", [True, False])
def test_a_file_is_downloaded(reads_first):
    fake = FakeWire(style=Style(block_bytes=1000))
    fake.master.begin("7", writes=False, reads=True)
    data = bytes(range(256)) * 100
    if reads_first:
        fake.worker.accepted("7", reads=True)
        fake.turn()
        stream = download(fake, data)
    else:
        stream = download(fake, data)
        fake.worker.accepted("7", reads=True)
    here = opened(fake.worker_events(), "download")
    got, close = b"", None
    while close is None:
        batch = fake.worker.take(here, 5000)
        got += batch.chunk_bytes()
        close = batch.close()
        fake.worker.settle(here, batch.end, 0)
        fake.turn()
    assert got == data
    assert close[0] == len(data)
    assert fake.worker.ended(here)
    assert fake.master_events() == []
    fake.worker.settle(here, batch.end, batch.end)
    assert fake.master_events() == [StreamProgress(stream, fake_sent(data), fake_sent(data), True)]
    assert fake.said[-1] == CloseReader("7")
    assert len(fake.worker) == 0


def fake_sent(data):
    return len(file_records(data))


def test_a_worker_that_needs_no_more_says_so():
    fake = FakeWire(style=Style(block_bytes=10, window_bytes=50))
    fake.master.begin("7", writes=False, reads=True)
    stream = download(fake, bytes(10000))
    fake.worker.accepted("7", reads=True)
    fake.turn()
    fake.worker.stop(opened(fake.worker_events(), "download"), "closed")
    assert fake.master_events() == [StreamStopped(stream, "closed")]


def test_a_download_that_fails_fails_its_reads():
    fake = FakeWire()
    fake.master.begin("7", writes=False, reads=True)
    stream = fake.master.open("download", "7")
    fake.worker.accepted("7", reads=True)
    fake.turn()
    fake.master.reset(stream, "OSError: no such file")
    here = opened(list(fake.worker_end.events), "download")
    assert StreamReset(here, "OSError: no such file") in fake.worker_events()


def test_reads_ahead_are_bounded():
    fake = FakeWire(style=Style(block_bytes=1000, window_bytes=5000, reads_max=3))
    fake.master.begin("7", writes=False, reads=True)
    download(fake, bytes(100_000))
    fake.worker.accepted("7", reads=True)
    fake.turn()
    assert sum(isinstance(call, Read) for call in fake.said) <= 6


def test_buildbots_lost_download_is_an_empty_file_and_said():
    fake = FakeWire(style=Style(reads_max=1))
    fake.worker.accepted("7", reads=True)
    fake.worker.answered(1, None)
    here = opened(list(fake.worker_end.events), "download")
    batch = fake.worker.take(here, MIB)
    assert batch.close()[0] == 0
    fake.worker.settle(here, batch.end, batch.end)
    send_journal(fake, journal({"rc": 0}))
    [note, _] = fake.said[2].elements
    assert "loses every download" in note.text


def test_an_unread_download_is_closed_before_its_command_completes():
    fake = FakeWire()
    fake.worker.accepted("7", reads=True)
    send_journal(fake, journal({"rc": 1}))
    assert [type(call) for call in fake.said[-3:]] == [Update, CloseReader, Complete]


def test_the_master_makes_room_as_it_is_read():
    fake = FakeWire(window_bytes=1000)
    fake.master.begin("7", writes=False, reads=True)
    stream = fake.master.open("download", "7")
    record = chunk_records(bytes(900))
    fake.master.write(stream, record)
    record = chunk_records(bytes(500))
    fake.master.write(stream, record[: fake.master.room(stream)])
    assert fake.master.room(stream) == 0
    fake.master.called(1, Read("7", 800))
    assert StreamWritable(stream) in fake.master_events()


def test_methods_of_streams_that_are_over():
    fake = FakeWire()
    fake.master.settle(5, 1, 1)
    fake.master.stop(5, "x")
    fake.master.reset(5, "x")
    fake.worker.settle(5, 1, 1)
    fake.worker.stop(5, "x")
    fake.worker.reset(5, "x")
    assert fake.master.take(5, 1) is fake.worker.take(5, 1) is None
    assert fake.master.room(5) == fake.worker.room(5) == 0
    for side in (fake.master, fake.worker):
        with pytest.raises(LocalProtocolError):
            side.write(5, b"")
        with pytest.raises(LocalProtocolError):
            side.write_journal(5, Journal())


def test_a_worker_that_does_not_survive_errors_hears_of_a_failed_transfer_by_its_rc():
    fake = FakeWire()
    fake.master.survives_errors = False
    fake.master.begin("7", writes=False, reads=True)
    stream = fake.master.open("download", "7")
    fake.worker.accepted("7", reads=True)
    fake.turn()
    fake.master.reset(stream, "OSError: no such file")
    fake.turn()
    here = opened(list(fake.worker_end.events), "download")
    assert fake.worker.take(here, MIB).close()[0] == 0
    send_journal(fake, journal({"rc": 0}))
    there = opened(fake.master_events(), "journal")
    batch = fake.master.take(there, MIB)
    assert batch.updates()["rc"] == 1
    assert b"OSError: no such file" in batch.channel_bytes("stderr", None)
