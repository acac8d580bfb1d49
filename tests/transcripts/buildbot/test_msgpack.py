"""What Buildbot's own ends said to each other: ours understand it, and would have said the same."""

from __future__ import annotations

import msgspec
import pytest

from tailrace.dialects.buildbot.msgpack import codec
from tailrace.dialects.buildbot.msgpack.master import _Waiting
from tailrace.dialects.buildbot.msgpack.websocket import (
    Asked,
    ClientSocket,
    Closed,
    Denied,
    Message,
    Opened,
    ServerSocket,
)
from tailrace.dialects.buildbot.spelling import from_msgpack
from tailrace.messages import (
    Called,
    CallFailed,
    GetWorkerInfo,
    Held,
    InterruptCommand,
    LoggedIn,
    LoginAsked,
    PeerClosed,
    Print,
    Refused,
    Replied,
    SetBuilderList,
    Shutdown,
    StartCommand,
    StreamOpened,
    StreamReadable,
)
from tests.dialects.buildbot.fake_wire import file_records
from tests.dialects.buildbot.msgpack.pair import make_master, make_worker

from .msgpack_wire import RECORDINGS, body, conversation, decoded, matches, read_frames, spoken

MIB = 1 << 20
BUILDERS = tuple((path.stem, path.stem) for path in RECORDINGS)
each = pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
steps = pytest.mark.parametrize("step", [0, 1], ids=["whole", "byte by byte"])


def pieces(data, step):
    step = step or len(data) or 1
    return (data[start : start + step] for start in range(0, len(data), step))


def events(end):
    while (event := end.next_event()) is not None:
        yield event


def key_of(path):
    """What the recorded worker sent as its key: the master's answer was made for it."""
    head = spoken(path, "w2m").partition(b"\r\n\r\n")[0].decode()
    return next(line.split(": ")[1] for line in head.splitlines() if line.startswith("Sec-WebSocket-Key"))


# ---------------------------------------------------------------- messages


def read(socket, data, step):
    """Everything that a socket makes of it."""
    made = []
    head, blank, rest = data.partition(b"\r\n\r\n")
    # Nobody speaks before it was let in.
    for piece in (*pieces(head + blank, step), *pieces(rest, step)):
        socket.receive_data(piece)
        for event in events(socket):
            made.append(event)
            if isinstance(event, Asked):
                socket.admit()
    return made


def check_messages(path, direction, made):
    expected = [line for line in decoded(path) if line["dir"] == direction and "http" not in line]
    got = [event for event in made if isinstance(event, Message | Closed)]
    assert len(got) == len(expected)
    for line, event in zip(expected, got, strict=True):
        if "close" in line:
            assert isinstance(event, Closed)
        else:
            assert matches(line["msg"], msgspec.msgpack.decode(event.data))
            message = codec.decode(event.data)
            assert (message.op, message.seq_number) == (line["msg"]["op"], line["msg"]["seq_number"])
            assert codec.is_exception(message) == ("is_exception" in line["msg"])
            assert matches(line["msg"].get("result"), codec.value(message.result))


@steps
@each
def test_every_message_of_a_worker_is_read(path, step):
    made = read(ServerSocket(id="m", software="s"), spoken(path, "w2m"), step)
    assert isinstance(made[0], Asked)
    assert made[0].software.startswith("AutobahnPython")
    assert made[0].name == ("stranger" if "name" in path.stem else "w1")
    check_messages(path, "w2m", made)


@steps
@each
def test_every_message_of_a_master_is_read(path, step):
    socket = ClientSocket(host="h", name="w1", password=b"pass", id="i", software="s")
    socket._client.key = key_of(path)
    made = read(socket, spoken(path, "m2w"), step)
    if path.stem.startswith("badlogin"):
        socket.receive_eof()
        assert list(events(socket)) == [Denied("credentials", "unknown worker or wrong password")]
        return
    assert isinstance(made[0], Opened)
    check_messages(path, "m2w", made)


@each
def test_every_call_of_a_worker_is_one_that_we_would_make(path):
    directories = set()
    for way, message in conversation(path):
        if message.get("command_name") == "upload_directory":
            directories.add(message["command_id"])
        if way == "w2m" and message["op"] != "response":
            call = codec.decode_call(codec.decode(msgspec.msgpack.encode(message)))
            ours = codec.encode_call(call, directory=call.command in directories)
            ours = msgspec.msgpack.decode(codec.encode({**ours, "seq_number": message["seq_number"]}))
            assert ours == without_traceback(message)


def without_traceback(message):
    """Of a failure what it was, and not where it was."""
    if message["op"] != "complete" or message["args"] is None:
        return message
    kind, text = message["args"].splitlines()[0].removeprefix("[Failure instance: Traceback: <class '").split("'>: ")
    return {**message, "args": f"{kind.split('.')[-1]}: {text}"}


# ---------------------------------------------------------------- a worker of ours at the recorded master


@steps
@each
def test_a_worker_of_ours_has_the_recorded_conversation(path, step):
    if path.stem.startswith("badlogin"):
        return
    worker = make_worker(secret=b"pass")
    worker._socket._client.key = key_of(path)
    worker.data_to_send(MIB)
    worker.receive_data(spoken(path, "m2w").partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert [type(event) for event in events(worker)] == [LoggedIn]
    attaching = worker.call(Held(()))
    said = list(conversation(path))
    answers = {message["seq_number"]: message for way, message in said if way == "w2m" and message["op"] == "response"}
    frames = split_frames(body(path, "m2w"))
    asked, heard = [], []
    for way, message in said:
        if way == "m2w":
            for piece in pieces(next(frames), step):
                worker.receive_data(piece)
                for event in events(worker):
                    heard.append(event)
                    if isinstance(event, Called):
                        asked.append(event.request)
                        answer(worker, event, answers)
        elif message["op"] != "response":
            worker.send(codec.decode_call(codec.decode(msgspec.msgpack.encode(message))))
    ours = [msgspec.msgpack.decode(payload) for _, payload in read_frames(worker.data_to_send(64 * MIB))]
    recorded = [without_traceback(message) for way, message in said if way == "w2m"]
    assert sorted(ours, key=order) == sorted(recorded, key=order)
    assert asked == [request for way, message in said if way == "m2w" and (request := request_of(message)) is not None]
    if path.stem != "duplicate-second":
        assert Replied(attaching, None) in heard


def order(message):
    return message["op"] != "response", message["seq_number"]


def split_frames(data):
    """A master's data frames, one by one; those behind the last go with it."""
    while data:
        length, at = data[1] & 127, 2
        if length >= 126:
            at += 2 if length == 126 else 8
            length = int.from_bytes(data[2:at], "big")
        yield data[: at + length]
        data = data[at + length :]


def answer(worker, called, answers):
    recorded = answers[worker._asked[called.call][0]]
    if "is_exception" in recorded:
        worker.fail(called.call, "RemoteError", recorded["result"])
    elif isinstance(called.request, GetWorkerInfo):
        # Buildbot's says it all by itself.
        worker.reply(called.call, recorded["result"])
    else:
        kind = called.request
        if isinstance(kind, StartCommand):
            # The streams would begin to read a download here; the recorded calls do.
            worker._streams.accepted = lambda command, reads: None
        worker.reply(called.call, recorded["result"])


def request_of(message):
    match message:
        case {"op": "print", "message": text}:
            return Print(text)
        case {"op": "get_worker_info"}:
            return GetWorkerInfo()
        case {"op": "start_command", "command_id": command, "command_name": name, "args": args}:
            if any(isinstance(arg, bytes) for arg in args.values()):
                # Not text: refused at once.
                return None
            name, args, impls = from_msgpack(name, args)
            builder = message.get("builder_name", "")
            return StartCommand(builder=builder, command=command, name=name, args=args, impls=impls)
        case {"op": "interrupt_command", "command_id": command, "why": why}:
            return InterruptCommand(message.get("builder_name", ""), command, why)
        case {"op": "shutdown"}:
            return Shutdown()
    return None


# ---------------------------------------------------------------- a master of ours with the recorded worker


class TinyLink:
    """Takes what comes, settles it, and keeps it."""

    def __init__(self, master, files):
        self.master = master
        self.files = files
        self.journals, self.uploads, self.roles, self.results = {}, {}, {}, {}

    def handle(self, event):
        match event:
            case StreamOpened(stream, role, command):
                self.roles[stream] = (role, command)
            case StreamReadable(stream):
                self.take(stream)
            case Replied(number, value):
                self.results[number] = value
            case CallFailed(number, kind, text):
                self.results[number] = (kind, text)

    def take(self, stream):
        role, command = self.roles[stream]
        while (batch := self.master.take(stream, MIB)) is not None:
            kept = self.journals if role == "journal" else self.uploads
            kept.setdefault(command, []).append(batch)
            self.master.settle(stream, batch.end, batch.end)

    def turn(self):
        for event in events(self.master):
            self.handle(event)


def master_call(master, message, link):
    """What link would say to have this sent."""
    match message["op"]:
        case "print":
            master.call(Print(message["message"]))
        case "get_worker_info":
            master.call(GetWorkerInfo())
        case "start_command":
            start(master, message, link)
        case "interrupt_command":
            master.call(InterruptCommand(message.get("builder_name", ""), message["command_id"], message["why"]))
        case "shutdown":
            master.call(Shutdown())
        case _ if message["seq_number"] >= master._sequence:
            # Not in our vocabulary, or not at this time.
            rest = {key: value for key, value in message.items() if key != "seq_number"}
            master._request(rest, _Waiting())


def start(master, message, link):
    given = message["args"]
    name, args, impls = from_msgpack(message["command_name"], given)
    if impls:
        # What the path was made of.
        args = {key: value for key, value in given.items() if key != "path"}
    elif name == "stat":
        args |= {key: value for key, value in given.items() if key == "workdir"}
    builder, command = message.get("builder_name", ""), message["command_id"]
    master.call(StartCommand(builder=builder, command=command, name=name, args=args, impls=impls))
    if "reader" in impls:
        data = link.files.get(command, b"")
        stream = master.open("download", command)
        records = file_records(data)
        master.write(stream, records)
        master.end(stream)


def recorded_downloads(said):
    """What the recorded master answered to reads, by command."""
    reads = {m["seq_number"]: m["command_id"] for way, m in said if m["op"] == "update_read_file"}
    files = {}
    for way, message in said:
        if way == "m2w" and message["op"] == "response" and message["seq_number"] in reads:
            command = reads[message["seq_number"]]
            files[command] = files.get(command, b"") + (message["result"] or b"")
    return files


@each
def test_a_master_of_ours_has_the_recorded_conversation(path):
    if path.stem.startswith("badlogin") or path.stem == "duplicate-second":
        return
    said = list(conversation(path))
    master = make_master()
    link = TinyLink(master, recorded_downloads(said))
    master.receive_data(spoken(path, "w2m").partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    [asked] = events(master)
    assert isinstance(asked, LoginAsked)
    assert master.admit(b"pass")
    sent = master.data_to_send(MIB)
    assert sent.startswith(b"HTTP/1.1 101")
    assert [type(event) for event in events(master)] == [LoggedIn, Called]
    master.call(SetBuilderList(BUILDERS))
    frames = split_masked(body(path, "w2m"))
    for way, message in said:
        if way == "w2m":
            master.receive_data(next(frames))
            link.turn()
        elif message["op"] != "response":
            master_call(master, message, link)
            link.turn()
    ours = [msgspec.msgpack.decode(payload) for _, payload in read_frames(master.data_to_send(64 * MIB))]
    check_requests([m for m in ours if m["op"] != "response"], [m for w, m in said if w == "m2w"])
    check_answers([m for m in ours if m["op"] == "response"], said)
    check_output(link, said)
    for frame in frames:
        # The close, at the end.
        master.receive_data(frame)
    master.receive_eof()
    assert isinstance(list(events(master))[-1], PeerClosed)


def split_masked(data):
    while data:
        length, at = data[1] & 127, 2
        if length >= 126:
            at += 2 if length == 126 else 8
            length = int.from_bytes(data[2:at], "big")
        yield data[: at + 4 + length]
        data = data[at + 4 + length :]


def check_requests(ours, recorded):
    recorded = [message for message in recorded if message["op"] != "response"]
    assert len(ours) == len(recorded)
    for mine, theirs in zip(ours, recorded, strict=True):
        if theirs["op"] == "set_worker_settings":
            assert mine["args"].keys() == theirs["args"].keys()
        elif theirs["op"] == "start_command":
            assert {**mine, "args": None} == {**theirs, "args": None}
            # A tar stream comes as it is; the bytes in the recorded arguments are there for a fault.
            expected = {**theirs["args"], **({"compress": None} if "compress" in theirs["args"] else {})}
            if not has_secret(expected):
                assert {key: value for key, value in mine["args"].items() if key in expected} == expected
        else:
            assert mine == theirs


def has_secret(args):
    return isinstance(args.get("command"), list) and any(isinstance(word, list) for word in args["command"])


def check_answers(answers, said):
    calls = {m["seq_number"]: m for way, m in said if way == "w2m" and m["op"] != "response"}
    assert sorted(answer["seq_number"] for answer in answers) == sorted(calls)
    assert not [answer for answer in answers if "is_exception" in answer]
    assert all(isinstance(a["result"], bytes) == (calls[a["seq_number"]]["op"] == "update_read_file") for a in answers)


def check_output(link, said):
    """Every command's output and results are those of its updates."""
    texts, results = {}, {}
    for way, message in said:
        if way == "w2m" and message["op"] == "update":
            for key, value in message["args"]:
                if key in ("stdout", "stderr", "header"):
                    name = (message["command_id"], key, None)
                    texts[name] = texts.get(name, "") + value[0]
                elif key == "log":
                    name = (message["command_id"], key, value[0])
                    texts[name] = texts.get(name, "") + value[1][0]
                else:
                    results[message["command_id"], key] = value
    for (command, channel, name), text in texts.items():
        got = b"".join(batch.channel_bytes(channel, name) for batch in link.journals[command])
        assert got.decode() == text
    for (command, key), value in results.items():
        merged = {k: v for batch in link.journals[command] for k, v in batch.updates().items()}
        assert merged[key] == value


def test_a_refused_login_is_told():
    [path] = [path for path in RECORDINGS if path.stem == "badlogin-password"]
    worker = make_worker(secret=b"wrong")
    worker.receive_data(spoken(path, "m2w"))
    worker.receive_eof()
    [refused] = events(worker)
    assert isinstance(refused, Refused)
    assert refused.reason == "credentials"


def test_a_duplicate_is_told():
    [path] = [path for path in RECORDINGS if path.stem == "duplicate-second"]
    worker = make_worker(secret=b"pass")
    worker._socket._client.key = key_of(path)
    worker.receive_data(spoken(path, "m2w"))
    assert [event.reason for event in events(worker) if isinstance(event, PeerClosed)] == ["duplicate"]
