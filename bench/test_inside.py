"""What runs in a process, from Python: pytest-benchmark times each; the tests run each once, so that none of it rots.

Each says how much it does in a round: `bytes` gives megabytes a second, else `times` gives microseconds for each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tailrace import Updates
from tailrace._core import (
    BananaDecoder,
    Batch,
    Blake3,
    Journal,
    Ledger,
    LogReader,
    LogWriter,
    Session,
    TarDecoder,
    TarEncoder,
    banana_encode,
    chunk_records,
    decode_value,
    encode_value,
)
from tailrace.dialects.buildbot.msgpack import codec
from tailrace.dialects.buildbot.pb.jelly import jelly, unjelly

LINE = b"cc -O2 -Wall -Iinclude -c src/module/file.c -o build/module/file.o; echo done...\n"
BLOCK = LINE * (65_536 // len(LINE))
STREAM_BYTES = 3 << 20
WINDOW = {"stream_window": 8 << 20, "connection_window": 8 << 30}
"""So large that nothing waits for credit."""
RECORD_S = 0.001


def journal(size: int, piece: bytes = BLOCK) -> Journal:
    """stdout in records of `piece`, a millisecond apart."""
    made = Journal()
    for number in range(-(-size // len(piece))):
        now = number * int(RECORD_S * 1e6)
        made.append("stdout", piece, now, now)
    return made


def whole(made: Journal) -> Batch:
    batch = made.batch(0, 1 << 30)
    assert batch is not None
    return batch


def carry(source: Session, target: Session) -> bool:
    some = False
    while data := source.data_to_send():
        target.receive_data(data)
        some = True
    return some


def forget(session: Session) -> None:
    while session.next_event() is not None:
        pass


def sessions() -> tuple[Session, Session, int]:
    """A worker with an open journal, its master, and the stream's number."""
    worker = Session("worker", id="i", nonce=bytes(32), name="w", secret=b"s", **WINDOW)
    master = Session("master", id="m", nonce=bytes(range(32)), **WINDOW)
    for _ in range(2):
        while carry(worker, master) | carry(master, worker):
            pass
        if worker.next_event() is None:
            assert master.admit(b"s")
    stream = worker.open("journal", "1")
    while carry(worker, master) | carry(master, worker):
        pass
    forget(worker)
    forget(master)
    return worker, master, stream


@pytest.fixture
def measure(benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Times `job`, whose arguments `setup` makes new for each round; says what one round is worth."""

    def run(job: Callable[..., object], setup: Callable[[], tuple[object, ...]] | None = None, **worth: int) -> None:
        benchmark.extra_info.update(worth)
        if setup is None:
            benchmark(job)
        else:
            benchmark.pedantic(job, setup=lambda: (setup(), {}), rounds=30, warmup_rounds=2)

    return run


def test_session_receives_data_frames(measure):
    def setup() -> tuple[Session, list[bytes]]:
        worker, master, stream = sessions()
        worker.write_journal(stream, made)
        said = []
        while data := worker.data_to_send():
            said.append(data)
        return master, said

    def receive(master: Session, said: list[bytes]) -> None:
        taken = 0
        for data in said:
            master.receive_data(data)
            while (event := master.next_event()) is not None:
                while (batch := master.take(event.stream, 8 << 20)) is not None:
                    taken += batch.end - batch.start
                    master.settle(event.stream, batch.end, batch.end)
            master.data_to_send()
        assert taken == made.end

    made = journal(STREAM_BYTES)
    measure(receive, setup, bytes=made.end)


def test_session_sends_a_journal(measure):
    def send(worker: Session, _: Session, stream: int) -> None:
        worker.write_journal(stream, made)
        while worker.data_to_send():
            pass
        assert worker.sent(stream) == made.end

    made = journal(STREAM_BYTES)
    measure(send, sessions, bytes=made.end)


def test_session_calls_and_replies(measure):
    def calls(worker: Session, master: Session, _: int) -> None:
        for _ in range(100):
            master.call("start", args)
        carry(master, worker)
        while (event := worker.next_event()) is not None:
            worker.reply(event.call, None)
        carry(worker, master)
        answers = 0
        while master.next_event() is not None:
            answers += 1
        assert answers == 100

    args = {"builder": "b", "command": "1", "args": {"command": ["make", "-j8"], "workdir": ".", "timeout": 1200}}
    measure(calls, sessions, times=100)


@pytest.mark.parametrize(("name", "piece"), [("block", BLOCK), ("line", LINE), ("byte", b"x")])
def test_journal_appends(measure, name, piece):
    """Line index, record, chain and counts, as for a command that has no child; with a child all of it is Rust."""
    del name
    count = min(STREAM_BYTES // len(piece), 2_000)

    def append(made: Journal) -> None:
        for now in range(count):
            made.append("stdout", piece, now, now)

    measure(append, lambda: (Journal(),), bytes=count * len(piece))


def test_ledger_checks_and_counts(measure):
    batch = whole(journal(STREAM_BYTES))

    def add() -> None:
        ledger = Ledger()
        ledger.add(batch)

    measure(add, bytes=batch.end)


@pytest.mark.parametrize(("name", "piece"), [("block", BLOCK), ("line", LINE)])
def test_updates_to_an_impl(measure, name, piece):
    """What a counting Impl asks of each call: the parts, the records, their lengths and lines."""
    del name
    batch = whole(journal(STREAM_BYTES if piece is BLOCK else STREAM_BYTES // 16, piece))

    def update() -> None:
        size = lines = 0
        for part in batch.parts():
            updates = Updates(part)
            for record in updates.records:
                size += len(record)
                lines += record.lines
            assert updates.get("rc") is None
        assert size == lines * len(LINE) > 0

    measure(update, bytes=batch.end)


def test_updates_as_text(measure):
    batch = whole(journal(STREAM_BYTES))
    measure(lambda: Updates(batch)["stdout"], bytes=batch.end)


def test_line_index_times_and_cut(measure):
    """The first screen of a log: from some line of a record on, with the times of its lines."""
    [record] = whole(journal(1)).records()
    middle = record.lines // 2

    def cut() -> None:
        assert len(record.cut(middle).times) == record.lines - middle

    measure(cut, times=1)


def test_chunks_are_hashed(measure):
    data = BLOCK * 16

    def digest() -> None:
        blake3 = Blake3()
        blake3.update(data)
        assert len(blake3.digest()) == 32

    measure(digest, bytes=len(data))


def test_chunks_become_records_and_chunks_again(measure):
    data = BLOCK * 16

    def both() -> None:
        assert sum(map(len, Batch.parse(chunk_records(data)).chunks())) == len(data)

    measure(both, bytes=len(data))


def test_segment_is_appended_to(measure, tmp_path):
    batch = whole(journal(1 << 20))
    count = iter(range(1_000_000))

    def setup() -> tuple[LogWriter]:
        (directory := tmp_path / str(next(count))).mkdir()
        return (LogWriter.create(str(directory)),)

    measure(lambda writer: writer.append(batch), setup, bytes=batch.end)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A log of 64 MiB."""
    directory: Path = tmp_path_factory.mktemp("kept")
    writer = LogWriter.create(str(directory))
    made = journal(64 << 20)
    while (batch := made.batch(writer.end, 1 << 20)) is not None:
        writer.append(batch)
    writer.close()
    return directory


def test_segment_is_read(measure, kept):
    def read(reader: LogReader) -> None:
        offset = 0
        while (batch := reader.batch(offset, 1 << 20)) is not None:
            offset = batch.end
        assert offset == reader.end

    measure(read, lambda: (LogReader.open(str(kept)),), bytes=LogReader.open(str(kept)).end)


def test_seek_by_line(measure, kept):
    reader = LogReader.open(str(kept))
    lines = reader.lines()

    def seek() -> None:
        for part in range(1, 10):
            assert reader.find_line(lines * part // 10) is not None

    measure(seek, times=9)


def test_seek_by_time(measure, kept):
    reader = LogReader.open(str(kept))

    def seek() -> None:
        for part in range(1, 10):
            assert 0 < reader.find_time(part * 100 * RECORD_S) < reader.end

    measure(seek, times=9)


def test_first_screen_of_a_log_just_opened(measure, kept):
    def screen() -> None:
        reader = LogReader.open(str(kept))
        found = reader.find_line(reader.lines() - 100)
        assert found is not None
        batch = reader.batch(found[0], 1 << 16)
        assert batch is not None
        assert batch.records()[0].cut(found[1]).data

    measure(screen, times=1)


UPDATE = [[{"stdout": BLOCK[:4096].decode()}, 0], [{"rc": 0}, 0]]


def test_values(measure):
    value = {"files": [{"path": f"src/file-{number}.c", "size": number, "new": True} for number in range(1_000)]}
    measure(lambda: decode_value(encode_value(value)), bytes=len(encode_value(value)))


def test_banana_decodes_output(measure):
    """Perspective Broker's bytes of a thousand updates, as Buildbot's worker sends them, joined in Rust."""
    calls = [
        banana_encode([b"message", number, 7, b"update", 1, [b"tuple", jelly(UPDATE[:1])], [b"dictionary"]])
        for number in range(1_000)
    ]
    said = b"".join(calls)

    def decode() -> None:
        decoder = BananaDecoder()
        decoder.use_vocabulary()
        decoder.receive_data(said)
        count = 0
        while (output := decoder.next_output()) is not None:
            count += len(output.calls)
        assert count == len(calls)

    measure(decode, bytes=len(said))


def test_banana_and_jelly_of_a_call(measure):
    def both() -> None:
        decoder = BananaDecoder()
        decoder.use_vocabulary()
        decoder.receive_data(banana_encode(jelly(UPDATE)))
        expression = decoder.next_expression()
        assert expression is not None
        unjelly(expression)

    measure(both, times=1)


def test_msgpack_wire_of_an_update(measure):
    """Buildbot's msgpack: one update of 4 KiB, packed and read."""
    message = {
        "op": "update",
        "seq_number": 1,
        "command_id": "1",
        "args": [["stdout", [BLOCK[:4096].decode(), [], []]]],
    }
    measure(lambda: codec.decode(codec.encode(message)), bytes=len(codec.encode(message)))


def test_tar(measure):
    def both() -> None:
        encoder, decoder = TarEncoder(), TarDecoder()
        entries = 0
        for number in range(100):
            encoder.entry(b"src/file-%d.c" % number, "file", 0o644, 1_760_000_000_000_000_005, 2_000)
            encoder.data(BLOCK[:2_000])
            decoder.receive_data(encoder.take())
            while decoder.next_event() is not None:
                entries += 1
        assert entries >= 100

    measure(both, times=100)
