"""Makes the transcripts of the native wire: `python -m tests.transcripts.record_native`, from the top of the project.

Transcripts of a release are never made again: a change that alters them is a change of the wire, and old peers speak
the old one for ever. New conversations are added here; one that was recorded is left alone unless `--again` is given.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace._core import Journal, chunk_records, close_record, unpack_record, utime_record

from .native_wire import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = Path(__file__).parent / "native"
BOTH = {"software": "recorder", "stream_window": 4 << 20, "connection_window": 32 << 20, "streams_max": 4096}
WORKER = BOTH | {"id": "5d0e-instance", "nonce": bytes(range(32)), "name": "w1", "secret": b"a secret"}
MASTER = BOTH | {"id": "77ab-master", "nonce": bytes(range(32, 64))}


def log_in(worker: dict | None = None, master: dict | None = None) -> Recorder:
    recorder = Recorder(WORKER | (worker or {}), MASTER | (master or {}))
    recorder.settle_down()
    recorder.do("master", "admit", b"a secret")
    return recorder


def login() -> Recorder:
    recorder = log_in({"capabilities": ["flying", "swimming"]}, {"capabilities": ["swimming"]})
    recorder.do("worker", "call", "held", {"commands": []})
    recorder.do("master", "reply", 0, None)
    recorder.do("master", "ping", 1)
    recorder.do("worker", "ping", (1 << 63) - 1)
    recorder.do("worker", "close", "bye", "that was all")
    return recorder


def wrong_secret() -> Recorder:
    recorder = Recorder(WORKER, MASTER)
    recorder.settle_down()
    recorder.do("master", "admit", b"another secret")
    return recorder


def duplicate() -> Recorder:
    recorder = Recorder(WORKER, MASTER)
    recorder.settle_down()
    recorder.do("master", "refuse", "duplicate", "w1 is attached from elsewhere")
    return recorder


def command() -> Recorder:
    """A command whose log has every kind of record, and more than one batch."""
    recorder = log_in()
    start = {"builder": "b", "command": "c-1", "name": "shell", "args": {"command": ["make", "-j8"], "env": {"A": "é"}}}
    recorder.do("master", "call", "setBuilderList", {"builders": [["b", "b"]]})
    recorder.do("worker", "reply", 0, ["b"])
    recorder.do("master", "call", "startCommand", start | {"impls": {}})
    recorder.do("worker", "reply", 1, None)
    journal = Journal()
    journal.append("header", b"make -j8\n", 1_700_000_000_000_000, 5)
    journal.append("stdout", b"one\ntwo\nthr", 1_700_000_000_010_000, 10_005)
    journal.append("stderr", b"\xff\xfe\r", 1_700_000_000_020_000, 20_005)
    stream = recorder.do("worker", "open", "journal", "c-1")
    recorder.do("worker", "write", stream, bytes(journal.batch(0, 1 << 20).raw))
    end = recorder.take("master", stream, 1 << 20)
    recorder.do("master", "settle", stream, end, 0)
    journal.append("stdout", b"ee\n", 1_700_000_000_030_000, 30_005)
    journal.append("log", b"x" * 5000 + b"\n", 1_700_000_000_040_000, 40_005, "test.log")
    journal.gap("stdout", None, 100, 2, "spool full")
    journal.update({"rc": 0})
    journal.update({"elapsed": 0.05})
    journal.finish()
    recorder.do("worker", "write", stream, bytes(journal.batch(end, 1 << 20).raw))
    recorder.do("worker", "end", stream)
    while end < journal.end:
        end = recorder.take("master", stream, 2000)
    recorder.do("master", "ended", stream)
    recorder.do("master", "settle", stream, end, end)
    return recorder


def transfers() -> Recorder:
    """An upload of a file, a download of a directory, one that is stopped and one that is reset."""
    recorder = log_in()
    upload = recorder.do("worker", "open", "upload", "c-1")
    content = b"f" * 3000
    records = chunk_records(content) + utime_record(1.5, 2.5) + close_record(len(content), b"\x07" * 32)
    recorder.do("worker", "write", upload, records)
    recorder.do("worker", "end", upload)
    end = recorder.take("master", upload, 1 << 20)
    recorder.do("master", "settle", upload, end, 0)
    recorder.do("master", "settle", upload, end, end)
    download = recorder.do("master", "open", "download", "c-2")
    recorder.do(
        "master", "write", download, chunk_records(b"t" * 1024) + unpack_record() + close_record(1024, b"\x08" * 32)
    )
    recorder.do("master", "end", download)
    end = recorder.take("worker", download, 1 << 20)
    recorder.do("worker", "settle", download, end, end)
    stopped = recorder.do("worker", "open", "upload", "c-3")
    recorder.do("worker", "write", stopped, chunk_records(b"s" * 2000))
    recorder.do("master", "stop", stopped, "OSError: no space left on device")
    reset = recorder.do("worker", "open", "upload", "c-4")
    recorder.do("worker", "write", reset, chunk_records(b"r" * 2000))
    recorder.do("worker", "reset", reset, "interrupted")
    return recorder


def credit() -> Recorder:
    """A log larger than its window, whose receiver takes its time."""
    recorder = log_in(master={"stream_window": 20_000, "connection_window": 60_000})
    stream = recorder.do("worker", "open", "journal", "c-1")
    for letter in b"abcdefgh":
        recorder.do("worker", "write", stream, chunk_records(bytes([letter]) * 9000))
    recorder.do("worker", "end", stream)
    while not recorder.sessions["master"].ended(stream):
        end = recorder.take("master", stream, 10_000)
        recorder.do("master", "settle", stream, end, end)
    return recorder


def compression() -> Recorder:
    """A peer that compresses: made up, because no compressor makes the same bytes for ever."""
    recorder = log_in({"capabilities": ["zstd"]}, {"capabilities": ["flying", "zstd"]})
    recorder.do("master", "welcome_compressed", True)
    recorder.do("worker", "welcome_compressed", True)
    upload = recorder.do("worker", "open", "upload", "c-1")
    # One chunk of 2,000 times "z", 2,005 bytes with its head.
    record = bytes.fromhex("28b52ffd00486d000030000007d1407a0100ccffa008")
    recorder.raw("worker", bytes.fromhex("2700001a 01 00 d50f") + record)
    recorder.take("master", upload, 1 << 20)
    recorder.do("worker", "welcome_compressed", False)
    recorder.raw("worker", bytes.fromhex("2700001b 01 d50f d50f") + record)
    recorder.take("master", upload, 1 << 20)
    return recorder


def resume() -> Recorder:
    """The second session of a worker: a journal and two transfers go on, a command is forgotten, one cannot go on."""
    recorder = log_in()
    journal = Journal()
    journal.append("stdout", b"said before\n", 1_700_000_000_000_000, 5)
    first = journal.batch(0, 1 << 20)
    assert first is not None
    begun, chain = first.end, journal.chain_at(first.end)
    journal.append("stdout", b"said meanwhile\n", 1_700_000_001_000_000, 1_000_005)
    journal.update({"rc": 0})
    journal.finish()

    def held(command: str, state: str) -> dict:
        known = {"command": command, "builder": "b", "name": "shell", "begin": 0, "end": journal.end}
        return known | {"chain": journal.chain_at(journal.end), "state": state}

    said = [held("c-1", "complete"), held("c-2", "running"), held("c-3", "running")]
    recorder.do("worker", "call", "held", {"commands": said})
    recorder.do("master", "reply", 0, None)
    recorder.do("master", "call", "resumeCommand", {"command": "c-1", "next": begun, "chain": chain, "upload": 1005})
    recorder.do("worker", "reply", 0, {"offset": begun, "agrees": True, "download": 0})
    recorder.do("master", "call", "forgetCommand", {"command": "c-2"})
    recorder.do("worker", "reply", 1, None)
    recorder.do("master", "call", "resumeCommand", {"command": "c-3", "next": 1 << 40, "chain": bytes(32)})
    recorder.do("worker", "fail", 2, "Damaged", "the journal ends before")
    upload = recorder.do("worker", "open", "upload", "c-1", 1005)
    recorder.do("worker", "write", upload, close_record(1000, b"\x07" * 32))
    recorder.do("worker", "end", upload)
    end = recorder.take("master", upload, 1 << 20)
    recorder.do("master", "settle", upload, end, end)
    download = recorder.do("master", "open", "download", "c-1", 0)
    recorder.do("master", "reset", download, "master restarted")
    stream = recorder.do("worker", "open", "journal", "c-1", begun)
    # What is safe is stated anew, also of what came before.
    recorder.do("master", "settle", stream, begun, begun)
    rest = journal.batch(begun, 1 << 20)
    assert rest is not None
    recorder.do("worker", "write", stream, bytes(rest.raw))
    recorder.do("worker", "end", stream)
    end = recorder.take("master", stream, 1 << 20)
    recorder.do("master", "ended", stream)
    recorder.do("master", "settle", stream, end, end)
    recorder.do("worker", "close", "away", "")
    return recorder


def large_messages() -> Recorder:
    recorder = log_in()
    recorder.do("master", "call", "startCommand", {"args": {"patch": b"p" * 100_000, "level": 1}})
    recorder.do("worker", "fail", 0, "CommandIdInUse", "c-1 is another command")
    recorder.do("master", "call", "getWorkerInfo", {})
    recorder.do("worker", "reply", 1, {"environ": b"e" * 70_000})
    return recorder


def optional_frames() -> Recorder:
    """A newer peer says what we do not know."""
    recorder = log_in()
    recorder.raw("master", bytes.fromhex("9000000400010203 ff000000"))
    recorder.do("master", "ping", 3)
    return recorder


def protocol_error() -> Recorder:
    recorder = log_in()
    recorder.do("master", "call", "print", {"message": "before the fault"})
    recorder.raw("master", bytes.fromhex("21000006 05 00 00000001"))
    return recorder


CONVERSATIONS: tuple[Callable[[], Recorder], ...] = (
    login,
    wrong_secret,
    duplicate,
    command,
    transfers,
    credit,
    compression,
    resume,
    large_messages,
    optional_frames,
    protocol_error,
)


def main() -> None:
    for conversation in CONVERSATIONS:
        path = DIRECTORY / f"{conversation.__name__}.jsonl"
        if "--again" in sys.argv or not path.exists():
            path.write_text(conversation().text())
            print(path)


if __name__ == "__main__":
    main()
