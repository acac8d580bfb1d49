"""Whatever comes: an event, or `RemoteProtocolError`, and nothing else."""

from __future__ import annotations

import contextlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import RemoteProtocolError
from tailrace.messages import GetWorkerInfo, Held, Print, StreamOpened

from .pair import make_master, make_worker
from .test_dialect import TheirMaster, TheirWorker, frame, request

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
OPS = (
    "print", "keepalive", "get_worker_info", "set_worker_settings", "start_command", "interrupt_command", "shutdown",
    "update", "complete", "update_upload_file_write", "update_upload_file_close", "update_upload_file_utime",
    "update_upload_directory_write", "update_upload_directory_unpack", "update_read_file", "update_read_file_close",
    "response",
)  # fmt: skip
lines = st.tuples(st.text(max_size=5), st.lists(st.integers(0, 9), max_size=3), st.lists(st.floats(), max_size=3))
pairs = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr", "header"]), lines)
    | st.tuples(st.just("log"), st.tuples(st.text(max_size=3), lines))
    | st.tuples(st.sampled_from(["rc", "elapsed", "stat", "files", "x"]), values),
    max_size=4,
)
messages = st.fixed_dictionaries(
    {"op": st.sampled_from(OPS), "seq_number": st.integers(0, 4)},
    optional={
        "args": values | pairs | st.dictionaries(st.sampled_from(["path", "newline_re", "buffer_size"]), values),
        "command_id": st.sampled_from(["7", "8"]),
        "command_name": st.sampled_from(["shell", "upload_file", "download_file", "mkdir"]),
        "builder_name": st.text(max_size=2),
        "message": st.text(max_size=4),
        "why": st.text(max_size=4),
        "length": st.integers(-1, 2**40),
        "access_time": st.none() | st.floats(),
        "modified_time": st.none() | st.floats(),
        "result": values,
        "is_exception": st.booleans(),
    },
)


def feed(end, data):
    """Like `link` does, up to the end."""
    with contextlib.suppress(RemoteProtocolError):
        end.receive_data(data)
        while (event := end.next_event()) is not None:
            if isinstance(event, StreamOpened):
                batch = end.take(event.stream, 1 << 20)
                if batch is not None:
                    end.settle(event.stream, batch.end, batch.end)
    end.data_to_send(1 << 20)


@given(st.binary(max_size=200))
def test_bytes_instead_of_a_handshake(data):
    for end in (make_master(), make_worker()):
        feed(end, data)
        feed(end, data)


@given(st.binary(max_size=300))
def test_bytes_instead_of_frames(data):
    worker, master = TheirMaster().ours, TheirWorker().ours
    feed(worker, data)
    feed(master, data)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_bytes_instead_of_messages(payloads):
    worker, master = TheirMaster().ours, TheirWorker().ours
    for payload in payloads:
        feed(worker, frame(payload))
        feed(master, frame(payload, masked=True))


@given(st.lists(messages, max_size=8))
def test_messages_out_of_order(said):
    their = TheirWorker()
    their.introduce()
    their.started("uploadFile", {"workersrc": "x"}, {"writer": "FileWriter"})
    their.ours.call(GetWorkerInfo())
    their.ours.call(Print("x"))
    worker = TheirMaster().ours
    worker.call(Held(()))
    worker.open("journal", "7")
    for message in said:
        data = msgspec.msgpack.encode(message)
        feed(their.ours, frame(data, masked=True))
        feed(worker, frame(data))


@given(st.lists(st.sampled_from([b"Authorization: Basic ", b"\r\n", b"dzE6cGFzcw==", b":", b"\xff", b"Upgrade: x"])))
def test_heads(parts):
    feed(make_master(), request().replace(b"\r\n\r\n", b"\r\n") + b"".join(parts) + b"\r\n\r\n")
