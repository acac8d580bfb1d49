"""The msgpack dialect does what every dialect does, and what Buildbot's ends expect."""

from __future__ import annotations

import base64

import msgspec
import pytest

from tailrace._core import Journal
from tailrace.dialects.buildbot.msgpack import codec
from tailrace.dialects.buildbot.msgpack.worker import NEWLINE_RE
from tailrace.errors import LocalProtocolError, RemoteProtocolError, Unsupported
from tailrace.messages import (
    AskShutdown,
    Called,
    CallFailed,
    GetWorkerInfo,
    Held,
    InterruptCommand,
    PeerClosed,
    Print,
    Refused,
    Replied,
    SetBuilderList,
    Shutdown,
    StartBuild,
    StartCommand,
    StreamOpened,
    StreamStopped,
)
from tests.dialects.conformance import CHECKS
from tests.transcripts.buildbot.msgpack_wire import read_frames

from .pair import INFO, SECRET, make_master, make_pair, make_worker

MIB = 1 << 20


@pytest.mark.parametrize("step", [0, 1, 1000], ids=["whole", "byte by byte", "in pieces"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_conforms(check, step):
    if step == 1 and check.__name__ == "a_stream_does_not_outrun_its_credit":
        step = 7919
    check(make_pair(step))


# ---------------------------------------------------------------- ends of Buildbot's, in the shortest way


def frame(message, *, opcode=2, masked=False):
    """A message, or bytes, as a frame."""
    payload = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
    length = len(payload)
    head = bytes([0x80 | opcode, (masked << 7) | (length if length < 126 else 126 if length < 65536 else 127)])
    if length >= 126:
        head += length.to_bytes(2 if length < 65536 else 8, "big")
    return head + bytes(4 * masked) + payload


def request(*headers, name="w1", password="pass"):
    """Buildbot's worker asks to be let in."""
    credentials = base64.b64encode(f"{name}:{password}".encode()).decode()
    lines = [
        "GET / HTTP/1.1",
        "Host: 127.0.0.1:9989",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: o4DPwRQjcdyKP5WqrlelzA==",
        "Sec-WebSocket-Version: 13",
        *(headers or (f"Authorization: Basic {credentials}",)),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Their:
    """Somebody at the other end of one of ours."""

    masked = False

    def __init__(self, ours):
        self.ours = ours
        self.seq = 0

    def say(self, *messages):
        for message in messages:
            self.ours.receive_data(frame(message, masked=self.masked))
        return self.events()

    def ask(self, op, **keys):
        self.seq += 1
        return self.say({"op": op, "seq_number": self.seq - 1, **keys})

    def events(self):
        events = []
        while (event := self.ours.next_event()) is not None:
            events.append(event)
        return events

    def heard(self):
        """What ours has said since."""
        return [msgspec.msgpack.decode(data) for op, data in read_frames(self.ours.data_to_send(64 * MIB)) if op == 2]


class TheirWorker(Their):
    """Buildbot's worker at a master of ours, let in."""

    masked = True

    def __init__(self, **limits):
        super().__init__(make_master(**limits))
        self.ours.receive_data(request())
        self.events()
        assert self.ours.admit(b"pass")
        self.events()
        assert self.ours.data_to_send(MIB).startswith(b"HTTP/1.1 101 ")

    def introduce(self, **info):
        self.ours.call(GetWorkerInfo())
        [asked] = self.heard()
        self.say({"op": "response", "seq_number": asked["seq_number"], "result": {**INFO, **info}})
        [settings] = self.heard()
        self.say({"op": "response", "seq_number": settings["seq_number"], "result": None})
        self.ours.call(SetBuilderList((("b", "bdir"),)))
        self.events()
        return settings

    def started(self, name, args, impls=None, *, builder="b"):
        self.ours.call(StartCommand(builder=builder, command="7", name=name, args=args, impls=impls or {}))
        [asked] = self.heard()
        return asked


class TheirMaster(Their):
    """Buildbot's master with a worker of ours."""

    def __init__(self):
        super().__init__(make_worker())
        head = self.ours.data_to_send(MIB)
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
        from websockets.utils import accept_key

        answer = ["HTTP/1.1 101 Switching Protocols", "Upgrade: WebSocket", "Connection: Upgrade"]
        answer.append(f"Sec-WebSocket-Accept: {accept_key(key)}")
        self.ours.receive_data("\r\n".join([*answer, "", ""]).encode())
        [self.logged_in] = self.events()

    def set(self, **settings):
        defaults = {"buffer_size": 65536, "buffer_timeout": 5, "newline_re": NEWLINE_RE, "max_line_length": 4096}
        self.ask("set_worker_settings", args={**defaults, **settings})
        return self.heard()[0]

    def start(self, name, **args):
        """The worker accepts a command."""
        [called] = self.ask("start_command", command_id="7", command_name=name, args=args, builder_name="b")
        self.ours.reply(called.call, None)
        return called.request


# ---------------------------------------------------------------- login


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("X: y",), b"401"),
        (("Authorization: basic dzE6cGFzcw==",), b"400"),
        (("Authorization: Basic !!!",), b"400"),
        (("Authorization: Basic dzE=",), b"400"),
        (("Authorization: Bearer x",), b"400"),
    ],
)
def test_credentials_that_are_none(headers, status):
    master = make_master()
    master.receive_data(request(*headers))
    with pytest.raises(RemoteProtocolError):
        master.next_event()
    assert master.data_to_send(MIB).split()[1] == status
    assert master.eof_to_send


def test_a_password_may_have_colons():
    master = make_master()
    master.receive_data(request(password="a:b:c"))
    assert master.next_event().name == "w1"
    assert master.admit(b"a:b:c")


def test_an_empty_secret_is_nobodys():
    master = make_master()
    master.receive_data(request(password=""))
    master.next_event()
    assert not master.admit(b"")
    assert master.data_to_send(MIB).startswith(b"HTTP/1.1 401 ")


def test_extensions_are_not_taken():
    master = make_master()
    credentials = base64.b64encode(b"w1:pass").decode()
    master.receive_data(request(f"Authorization: Basic {credentials}", "Sec-WebSocket-Extensions: permessage-deflate"))
    master.next_event()
    assert master.admit(b"pass")
    assert b"Extensions" not in master.data_to_send(MIB)


def test_a_browser_gets_a_page():
    master = make_master()
    master.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(RemoteProtocolError, match="plain HTTP"):
        master.next_event()
    answer = master.data_to_send(MIB)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"text/html" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nAuthorization: Basic dzE6cGFzcw==\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000,
        b"GET " + b"x" * 100_000,
        request() + frame({"op": "print"}, masked=True),
        request() + frame(b"", opcode=8, masked=True),
        request() + b"junk",
        request().replace(b"Version: 13", b"Version: 12"),
    ],
)
def test_no_handshake(data):
    master = make_master()
    master.receive_data(data)
    with pytest.raises(RemoteProtocolError):
        master.next_event()
    assert master.eof_to_send


def test_who_speaks_before_it_was_let_in_is_not():
    master = make_master()
    master.receive_data(request())
    master.next_event()
    master.receive_data(frame({"op": "print"}, masked=True))
    assert master.admit(b"pass")
    with pytest.raises(RemoteProtocolError):
        master.next_event()


def test_who_goes_before_it_has_asked_has_just_gone():
    master = make_master()
    master.receive_data(b"GET")
    master.receive_eof()
    assert master.next_event() == PeerClosed("eof", "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "credentials"),
        (b"HTTP/1.1 400 Bad request\r\n\r\n", "rejected"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 18\r\n\r\nnot now: try later", "not now"),
    ],
)
def test_a_worker_hears_why_it_is_refused(answer, reason):
    worker = make_worker()
    worker.receive_data(answer)
    worker.receive_eof()
    refused = worker.next_event()
    assert isinstance(refused, Refused)
    assert refused.reason == reason


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\n\r\n"])
def test_a_worker_knows_what_is_no_master(answer):
    worker = make_worker()
    worker.receive_data(answer)
    with pytest.raises(RemoteProtocolError):
        worker.next_event()


def test_a_name_with_a_colon_cannot_be_said():
    with pytest.raises(LocalProtocolError, match="colon"):
        make_worker(name="a:b")


def test_a_worker_says_where_it_wants_to_go():
    head = make_worker().data_to_send(MIB)
    assert b"Host: master.example:9989\r\n" in head
    assert b"Authorization: Basic " + base64.b64encode(b"w1:" + SECRET) in head


def test_it_is_attached_when_the_master_goes_on():
    their = TheirMaster()
    number = their.ours.call(Held(()))
    assert [type(event) for event in their.ask("print", message="attached")] == [Called]
    assert [type(event) for event in their.ask("get_worker_info")] == [Called]
    their.set()
    their.seq += 0
    assert their.ask("keepalive") == []
    late = TheirMaster()
    late.set()
    again = late.ours.call(Held(()))
    assert late.events() == [Replied(again, None)]
    assert number


def test_the_answer_to_held_comes_with_the_settings():
    their = TheirMaster()
    number = their.ours.call(Held(()))
    defaults = {"buffer_size": 1, "buffer_timeout": 5, "newline_re": "x", "max_line_length": 1}
    assert their.ask("set_worker_settings", args=defaults) == [Replied(number, None)]


def test_a_close_without_a_word():
    their = TheirMaster()
    their.ours.receive_data(frame(b"", opcode=8))
    assert their.events()[0].reason == "duplicate"
    later = TheirMaster()
    later.set()
    later.ours.receive_data(frame(b"", opcode=8))
    assert later.events() == [PeerClosed("bye", "")]


# ---------------------------------------------------------------- a master's calls


def test_the_settings_lose_nothing():
    settings = TheirWorker().introduce()["args"]
    assert settings.keys() == {"buffer_size", "buffer_timeout", "newline_re", "max_line_length"}
    assert settings["max_line_length"] >= MIB
    import re

    assert re.sub(settings["newline_re"], "\n", "a\r\nb\rc\x08\x1b[u") == "a\r\nb\rc\x08\x1b[u"


def test_commands_have_their_other_names_and_absolute_paths():
    their = TheirWorker()
    their.introduce()
    asked = their.started("uploadFile", {"workersrc": "~/f", "workdir": "build"}, {"writer": "FileWriter"})
    assert asked["command_name"] == "upload_file"
    assert asked["builder_name"] == "b"
    assert asked["args"] == {
        "workersrc": "~/f",
        "workdir": "build",
        "path": "/home/w/f",
        "maxsize": None,
        "blocksize": 262144,
        "keepstamp": False,
    }


def test_a_command_in_the_base_directory_has_no_builder():
    their = TheirWorker()
    their.introduce()
    asked = their.started("mkdir", {"dir": "info"}, builder="")
    assert "builder_name" not in asked
    assert asked["args"] == {"paths": ["/w/info"]}


def test_windows_has_its_own_paths():
    their = TheirWorker()
    their.introduce(system="nt", basedir="c:\\w")
    assert their.started("shell", {"command": "dir", "workdir": "x/y"})["args"]["workdir"] == "c:\\w\\bdir\\x\\y"


def test_hidden_words_are_not_shown_by_buildbots_worker():
    their = TheirWorker()
    their.introduce()
    args = their.started("shell", {"command": ["login", ["obfuscated", "secret", "***"], "it's"], "env": {"A": "b"}})
    assert args["args"]["env"] == {"A": "b", "TAILRACE_WORD_0": "secret"}
    assert args["args"]["logEnviron"] is False
    assert "secret" not in str(args["args"]["command"])


@pytest.mark.parametrize(("system", "word"), [("nt", "secret"), ("posix", "se${HOME}cret")])
def test_hidden_words_that_would_be_shown_or_changed_are_not_sent(system, word):
    their = TheirWorker()
    their.introduce(system=system)
    with pytest.raises(Unsupported):
        their.started("shell", {"command": [["obfuscated", word, "***"]]})
    assert their.heard() == []


def test_hidden_words_stay_so_between_ours():
    pair = make_pair()
    pair.log_in()
    command = ["login", ["obfuscated", "secret", "***"]]
    pair.master.call(StartCommand(builder="", command="7", name="shell", args={"command": command}, impls={}))
    [called] = [event for event in pair.events_of(pair.worker) if isinstance(event, Called)]
    assert called.request.args["command"] == command


def test_what_has_no_call_is_answered_all_the_same():
    their = TheirWorker()
    number = their.ours.call(StartBuild("b"))
    assert their.events() == [Replied(number, None)]
    assert their.heard() == []


@pytest.mark.parametrize("value", [Held(()), AskShutdown()])
def test_what_a_master_does_not_say(value):
    with pytest.raises(LocalProtocolError):
        TheirWorker().ours.call(value)


def test_a_refused_command_is_forgotten():
    their = TheirWorker()
    their.introduce()
    number = their.ours.call(StartCommand(builder="b", command="7", name="nonono", args={}, impls={}))
    [asked] = their.heard()
    text = "(command 7): unrecognized WorkerCommand 'nonono'"
    [failed] = their.say({"op": "response", "seq_number": asked["seq_number"], "result": text, "is_exception": True})
    assert failed == CallFailed(number, "UnknownCommand", text)
    their.ask("update", command_id="7", args=[])
    [answer] = their.heard()
    assert answer["result"] == "'unknown \"command_id\"'"
    assert answer["is_exception"] is True


def test_interrupt_and_shutdown():
    their = TheirWorker()
    their.ours.call(InterruptCommand("b", "7", "enough"))
    their.ours.call(Shutdown())
    [interrupt, shutdown] = their.heard()
    del interrupt["seq_number"]
    assert interrupt == {"op": "interrupt_command", "builder_name": "b", "command_id": "7", "why": "enough"}
    assert shutdown["op"] == "shutdown"


# ---------------------------------------------------------------- a worker's calls


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"op": "no_such_op"}, "Command no_such_op does not exist."),
        ({"op": "update", "command_id": "7"}, "'message did not contain obligatory \"args\" key'"),
        ({"op": "update", "args": []}, "'message did not contain obligatory \"command_id\" key'"),
        ({"op": "update_read_file", "command_id": "7"}, "'message did not contain obligatory \"length\" key'"),
        ({"op": "keepalive"}, "Command keepalive does not exist."),
        ({"op": "update", "command_id": "7", "args": [["rc", "zero"]]}, "'rc': 'zero' is no whole number"),
        ({"op": "update", "command_id": "7", "args": [["stat", [1]]]}, "'stat': a stat has ten numbers"),
        ({"op": "update_upload_file_write", "command_id": "7", "args": "text"}, "a block of a file is `bin`, not str"),
    ],
)
def test_what_cannot_be_done_is_said(message, text):
    their = TheirWorker()
    their.introduce()
    their.started("shell", {})
    their.say({**message, "seq_number": 5})
    assert their.heard() == [{"op": "response", "seq_number": 5, "result": text, "is_exception": True}]


@pytest.mark.parametrize("message", [{"seq_number": 1}, {"op": "print"}, {}])
def test_messages_without_op_or_number_are_nothing(message):
    their = TheirWorker()
    assert their.say(message) == []
    assert their.heard() == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\xc0", b"\x91\x01", b"\x81\xa2op\x01", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xa1\xff"],
)
def test_what_is_no_message_ends_it(data):
    their = TheirWorker()
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            their.say(data)
    assert their.ours.eof_to_send


@pytest.mark.parametrize(
    "message",
    [
        {"op": "response", "seq_number": 99, "result": None},
        {"op": "response", "seq_number": 0, "result": msgspec.msgpack.Ext(5, b"x")},
        {"op": "response", "seq_number": 0, "result": {1: 2}},
    ],
)
def test_answers_that_are_none_end_it(message):
    their = TheirWorker()
    their.ours.call(Print("x"))
    with pytest.raises(RemoteProtocolError):
        their.say(message)


def test_an_error_is_one_by_its_key():
    their = TheirWorker()
    number = their.ours.call(Print("x"))
    [failed] = their.say({"op": "response", "seq_number": 0, "result": 5, "is_exception": False})
    assert failed == CallFailed(number, "RemoteError", "5")


def test_much_of_little_is_refused():
    their = TheirWorker()
    their.introduce()
    their.started("shell", {})
    their.ask("update", command_id="7", args=[["x", None]] * (codec.PAIRS_MAX + 1))
    their.ask("update", command_id="7", args=[["x", bytes(codec.VALUE_BYTES_MAX)]])
    assert ["is_exception" in answer for answer in their.heard()] == [True, True]


def test_text_frames_are_nothing_and_fragments_are_one():
    their = TheirWorker()
    number = their.ours.call(Print("x"))
    their.ours.receive_data(frame(b"hello", opcode=1, masked=True))
    assert their.events() == []
    data = msgspec.msgpack.encode({"op": "response", "seq_number": 0, "result": 1})
    first, second = frame(data[:4], masked=True), frame(data[4:], opcode=0, masked=True)
    their.ours.receive_data(bytes([first[0] & 0x7F]) + first[1:])
    their.ours.receive_data(frame(b"ping", opcode=9, masked=True))
    their.ours.receive_data(second)
    assert their.events() == [Replied(number, 1)]
    assert (10, b"ping") in list(read_frames(their.ours.data_to_send(MIB)))


def test_an_announcement_alone_takes_no_memory():
    their = TheirWorker()
    their.ours.receive_data(b"\x82\xff" + (1 << 31).to_bytes(8, "big") + bytes(4))
    with pytest.raises(RemoteProtocolError, match="exceeds limit"):
        their.events()


def test_who_asks_on_and_on_and_reads_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr("tailrace.dialects.buildbot.msgpack.websocket.ANSWERS_BYTES_MAX", MIB)
    their = TheirWorker()
    ping = frame(bytes(125), opcode=9, masked=True) * 1_000
    with pytest.raises(RemoteProtocolError, match="on and on"):
        for _ in range(10):
            their.ours.receive_data(ping)
            their.events()


def test_a_master_that_is_behind_wants_no_more():
    their = TheirWorker(connection_window_bytes=MIB)
    their.introduce()
    their.started("shell", {})
    lines = ["x" * (2 * MIB) + "\n", [], []]
    [opened, _] = their.ask("update", command_id="7", args=[["stdout", lines]])
    assert their.ours.receive_paused
    while (batch := their.ours.take(opened.stream, MIB)) is not None:
        their.ours.settle(opened.stream, batch.end, batch.end)
    assert not their.ours.receive_paused
    assert their.heard()[-1]["result"] is None


# ---------------------------------------------------------------- a worker of ours with Buildbot's master


def test_both_spellings_and_what_is_not_used():
    for name in ("upload_file", "uploadFile"):
        started = TheirMaster().start(name, path="/w/b/f", workdir="build", workersrc="f", maxsize=None, blocksize=1)
        assert (started.name, started.impls) == ("uploadFile", {"writer": "FileWriter"})
        assert started.args == {"workersrc": "/w/b/f", "maxsize": None, "blocksize": 1}


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("mkdir", {"paths": ["/a", "/b"]}, {"dir": ["/a", "/b"]}),
        ("rmdir", {"paths": ["/a"], "timeout": 5}, {"dir": ["/a"], "timeout": 5}),
        ("cpdir", {"from_path": "/a", "to_path": "/b"}, {"fromdir": "/a", "todir": "/b"}),
        ("stat", {"path": "/a", "workdir": "build"}, {"file": "/a"}),
        ("glob", {"path": "/a/*"}, {"path": "/a/*"}),
        ("listdir", {"path": "/a"}, {"dir": "/a"}),
        ("rmfile", {"path": "/a"}, {"path": "/a"}),
        ("shell", {"workdir": "/w", "command": ["a", b"b"]}, {"workdir": "/w", "command": ["a", "b"]}),
    ],
)
def test_arguments_are_ours(name, theirs, ours):
    assert TheirMaster().start(name, **theirs).args == ours


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ({"op": "print"}, "message"),
        ({"op": "interrupt_command", "command_id": "7"}, "why"),
        ({"op": "start_command", "command_id": "7", "args": {}}, "command_name"),
        ({"op": "start_command", "command_id": "7", "command_name": "x"}, "args"),
        ({"op": "set_worker_settings"}, "args"),
        ({"op": "set_worker_settings", "args": {}}, "buffer_size"),
    ],
)
def test_a_worker_says_what_it_misses(message, key):
    their = TheirMaster()
    their.say({**message, "seq_number": 5})
    text = f"'message did not contain obligatory \"{key}\" key'"
    assert their.heard() == [{"op": "response", "seq_number": 5, "result": text, "is_exception": True}]


def test_a_worker_says_what_it_does_not_know():
    their = TheirMaster()
    their.ask("no_such_op")
    [answer] = their.heard()
    assert (answer["result"], answer["is_exception"]) == ("Command no_such_op does not exist.", True)


def test_a_pattern_that_is_none_is_refused():
    their = TheirMaster()
    assert "is_exception" in their.set(newline_re="(")
    assert "is_exception" not in their.set()


def test_the_worker_has_the_names_that_masters_look_for():
    their = TheirMaster()
    [called] = their.ask("get_worker_info")
    their.ours.reply(called.call, {"worker_commands": {"shell": "3.3", "uploadFile": "3.3"}})
    [answer] = their.heard()
    assert answer["result"]["worker_commands"] == {"shell": "3.3", "uploadFile": "3.3", "upload_file": "3.3"}


def test_what_cannot_be_sent_can_still_be_refused():
    their = TheirMaster()
    [called] = their.ask("get_worker_info")
    with pytest.raises(LocalProtocolError):
        their.ours.reply(called.call, {"n": 1 << 70})
    their.ours.fail(called.call, "OSError", "no")
    assert their.heard()[0]["result"] == "OSError: no"
    with pytest.raises(LocalProtocolError):
        their.ours.reply(called.call, None)


def lines_of(their, *pieces, end=True):
    """What one command's output is on the wire."""
    journal = Journal()
    for piece in pieces:
        journal.append("stdout", piece, 1_000_000, 1)
    journal.update({"rc": 0})
    stream = their.ours.open("journal", "7")
    while their.ours.sent(stream) < journal.end:
        their.ours.write_journal(stream, journal)
    return [pair for message in their.heard() if message["op"] == "update" for pair in message["args"]]


def test_newlines_are_counted_in_characters_and_each_line_has_its_time():
    their = TheirMaster()
    their.start("shell", command="x")
    assert lines_of(their, "häl\nsnow ☃\nend".encode())[0] == [
        "stdout",
        ["häl\nsnow ☃\nend\n", [3, 10, 14], [1.0, 1.0, 1.0]],
    ]


def test_a_long_line_is_whole():
    their = TheirMaster()
    their.set(max_line_length=4096)
    their.start("shell", command="x")
    line = b"x" * 10_000
    assert lines_of(their, line[:5000], line[5000:] + b"\n")[0][1][0] == "x" * 10_000 + "\n"


def test_the_masters_separators_are_lines():
    their = TheirMaster()
    their.set()
    their.start("shell", command="x")
    out = lines_of(their, b"a\r\n10%\r20%\r", b"30%\nclear\x1b[2Jx\x08\x08y\r")
    assert "".join(text for key, (text, *_) in out[:-1] if key == "stdout") == "a\n10%\n20%\n30%\nclear\nx\ny\r\n"


def test_a_buffer_size_is_kept_where_lines_allow_it():
    their = TheirMaster()
    their.set(buffer_size=2000)
    their.start("shell", command="x")
    texts = [
        value[0] for key, value in lines_of(their, b"x" * 99 + b"\n", b"y" * 99 + b"\n", (b"z" * 99 + b"\n") * 100)[:-1]
    ]
    assert max(map(len, texts)) <= 2000
    assert sum(map(len, texts)) == 10_200


def test_a_directory_is_written_as_one():
    pair = make_pair()
    pair.log_in()
    pair.answer(StartCommand(builder="", command="7", name="uploadDirectory", args={}, impls={"writer": "FileWriter"}))
    pair.worker.open("upload", "7")
    assert "7" in pair.worker._directories
    pair.finish(1)
    assert "7" not in pair.worker._directories


def test_an_unknown_command_stops_its_journal():
    their = TheirMaster()
    their.start("shell", command="x")
    stream = their.ours.open("journal", "7")
    journal = Journal()
    journal.append("stdout", b"x\n", 1, 1)
    their.ours.write_journal(stream, journal)
    [update] = [message for message in their.heard() if message["op"] == "update"]
    events = their.say(
        {
            "op": "response",
            "seq_number": update["seq_number"],
            "result": "'unknown \"command_id\"'",
            "is_exception": True,
        }
    )
    assert [type(event) for event in events] == [StreamStopped]


def test_a_download_begins_when_its_command_was_accepted():
    their = TheirMaster()
    [called] = their.ask("start_command", command_id="7", command_name="download_file", args={"path": "/f"})
    assert their.heard() == []
    their.ours.reply(called.call, None)
    [answer, *reads] = their.heard()
    assert answer["op"] == "response"
    assert {read["op"] for read in reads} == {"update_read_file"}
    assert [event.role for event in their.events() if isinstance(event, StreamOpened)] == ["download"]


def test_statistics():
    their = TheirWorker()
    their.ours.call(Print("x"))
    counted = their.ours.statistics()
    assert counted["calls"] == 2
    assert counted["queued"] > 0
    assert codec.SETTINGS
