"""Each of our ends in the place of one of Buildbot's: it says, byte for byte, what was said there.

What Buildbot's end did is read from its own messages, and done with our dialect; what its peer sent is fed to it.
"""

from __future__ import annotations

import pytest

from tailrace._core import Blake3, banana_encode, chunk_records, close_record
from tailrace.dialects.buildbot.pb import codec, failures
from tailrace.dialects.buildbot.pb.jelly import Failure, Remote, unjelly
from tailrace.dialects.buildbot.pb.objects import Bot, CommandObject, ReaderObject, WorkerBuilder, WriterObject
from tailrace.limits import Limits
from tailrace.messages import (
    Called,
    CallFailed,
    GetWorkerInfo,
    Held,
    LoggedIn,
    LoginAsked,
    PeerClosed,
    Refused,
    Replied,
    SetBuilderList,
    StartCommand,
    StreamOpened,
    StreamReadable,
)

from .recordings import NAMES, decode, load, whole
from .test_dialect import SECRET, make

BIG = 1 << 24
WORKERS = [name for name in NAMES if name not in ("sendchange", "badlogin-name", "badlogin-password")]
# What only Buildbot's own ends say.
OLD_WAYS = ("getSlaveInfo", "getCommands", "getVersion")


class Session:
    """A recording as messages, with the objects that they are about."""

    def __init__(self, name):
        packets, shown = load(name)
        directions = {to: iter(decode(whole(packets, to), 0)) for to in ("m2w", "w2m")}
        self.messages = [(to, next(directions[to])) for to, _ in shown]
        self.tokens = {"m2w": {}, "w2m": {}}

    def target(self, direction, message):
        """The token of the object that a message is for."""
        return self.tokens["w2m" if direction == "m2w" else "m2w"].get(message[2])

    def learn(self, direction, message, asked):
        """Which objects a message tells of. `asked`: the method that an answer answers."""
        tokens = self.tokens[direction]
        if message[0] == b"answer" and asked == "respond":
            tokens[message[2][1]] = "perspective"
        elif message[0] == b"answer" and asked == "setBuilderList":
            tokens.update(
                (remote.luid, WorkerBuilder(codec.as_text(name))) for name, remote in unjelly(message[2]).items()
            )
        elif message[0] == b"message" and message[3] == b"respond":
            tokens[1] = Bot()
        elif message[0] == b"message" and message[3] == b"startCommand":
            reference, command, _name, args = unjelly(message[5])
            tokens[reference.luid] = CommandObject(command)
            for key, kind in (("writer", WriterObject), ("reader", ReaderObject)):
                if isinstance(args.get(key), Remote):
                    tokens[args[key].luid] = kind(command)


def served(target, message):
    method, args, kwargs = message[3].decode(), unjelly(message[5]), unjelly(message[6])
    decode = codec.decode_bot if isinstance(target, Bot) else lambda *call: codec.decode_builder(target.name, *call)
    return decode(method, args, kwargs)


def undecoded(target, message):
    """A start of a command that has bytes in its arguments."""
    _reference, command, name, args = unjelly(message[5])
    return StartCommand(builder=target.name, command=command, name=name, args=args, impls={})


class Said:
    """What our end said, to be compared with what was recorded."""

    def __init__(self, side):
        self.side, self.data = side, b""

    def collect(self):
        while data := self.side.data_to_send(BIG):
            self.data += data
        return self.messages()

    def messages(self):
        """{request id: expression} of calls, and of answers."""
        expressions = decode(self.data, 0)[1:]
        calls = {each[1]: each for each in expressions if each[0] == b"message"}
        answers = {each[1]: each for each in expressions if each[0] in (b"answer", b"error")}
        return calls, answers


# ---------------------------------------------------------------- our master in the place of Buildbot's


class MasterReplay:
    """Does what the recorded master did."""

    def __init__(self, name):
        self.session = Session(name)
        challenge = next(m[2][1] for to, m in self.session.messages if to == "m2w" and m[0] == b"answer")
        self.master = make("master", nonce=challenge + bytes(16), limits=Limits())
        self.said = Said(self.master)
        self.asked = {}
        self.held = None
        self.replies, self.updates, self.opened, self.batches = {}, {}, {}, {}
        self.events = []
        self.downloads = self._downloads()

    def _downloads(self):
        """{command: what it reads}."""
        reads, data, session = {}, {}, Session.__new__(Session)
        session.tokens = {"m2w": {}, "w2m": {}}
        for to, message in self.session.messages:
            session.learn(to, message, None)
            if to == "w2m" and message[0] == b"message" and isinstance(session.target(to, message), ReaderObject):
                if message[3] == b"read":
                    reads[message[1]] = session.target(to, message).command
            elif to == "m2w" and message[0] == b"answer" and message[1] in reads and isinstance(message[2], bytes):
                command = reads[message[1]]
                data[command] = data.get(command, b"") + message[2]
        return data

    def run(self):
        for to, message in self.session.messages:
            if to == "w2m":
                if message == b"pb":
                    self.master.receive_data(banana_encode(message, False))
                else:
                    self.master.receive_data(banana_encode(message))
                if message[0] == b"message":
                    self.asked["w2m", message[1]] = message[3].decode()
                self.drain()
            elif message[0] == b"message":
                self.asked["m2w", message[1]] = message[3].decode()
                self.call(message)
            elif message[0] in (b"answer", b"error") and self.asked.get(("w2m", message[1])) == "respond":
                self.answer_login(message)
            answered = self.asked.get(("w2m" if to == "m2w" else "m2w", message[1])) if len(message) > 1 else None
            self.session.learn(to, message, answered)
        return self

    def call(self, message):
        broker = self.master._broker
        broker._next_call = max(broker._next_call, message[1] - 1)
        method = message[3].decode()
        if method in OLD_WAYS or (method == "print" and b"buildbot-slave detected" in repr(message).encode()):
            # Ours does that by itself.
            return
        target = self.session.target("m2w", message)
        try:
            request = served(target, message)
        except failures.NoSuchMethodError:
            self.master._expect_reply(broker.call(Remote(message[2]), method), 0, lambda value: None)
            return
        except UnicodeDecodeError:
            request = undecoded(target, message)
        if isinstance(request, codec.Start):
            request = request.request
        try:
            self.master.call(request)
        finally:
            self.drain()
        if isinstance(request, StartCommand) and "FileReader" in request.impls.values():
            self.send(request.command)

    def send(self, command):
        data = self.downloads.get(command, b"")
        digest = Blake3()
        digest.update(data)
        stream = self.master.open("download", command)
        self.master.write(stream, chunk_records(data) + close_record(len(data), digest.digest()))
        self.master.end(stream)
        self.drain()

    def answer_login(self, message):
        if message[0] == b"answer":
            self.master.reply(self.held, None)
        else:
            self.master.close("duplicate", "it is there already")

    def drain(self):
        while (event := self.master.next_event()) is not None:
            self.events.append(event)
            match event:
                case LoginAsked():
                    self.master.admit(SECRET)
                case Called(call, Held()):
                    self.held = call
                case Called(call, _):
                    self.master.reply(call, None)
                case StreamOpened(stream, role, name):
                    self.opened[stream] = (role, name)
                case StreamReadable(stream):
                    while (batch := self.master.take(stream, BIG)) is not None:
                        self.batches.setdefault(self.opened[stream], []).append(batch)
                        self.master.settle(stream, batch.end, batch.end)
        self.said.collect()


def recorded(session, direction):
    messages = [message for to, message in session.messages if to == direction]
    calls = {each[1]: each for each in messages if each[0] == b"message"}
    answers = {each[1]: each for each in messages if each[0] in (b"answer", b"error")}
    return calls, answers


@pytest.mark.parametrize("name", WORKERS)
def test_our_master_says_what_buildbots_said(name):
    replay = MasterReplay(name).run()
    calls, answers = replay.said.collect()
    their_calls, their_answers = recorded(replay.session, "m2w")
    for number, theirs in their_calls.items():
        ours = calls[number]
        assert ours[:4] == theirs[:4]
        if b"buildbot-slave detected" not in repr(theirs).encode():
            assert unjelly(ours[5]) == without_defaults(unjelly(ours[5]), unjelly(theirs[5]))
            assert ours[6] == theirs[6]
    for number, theirs in their_answers.items():
        if theirs[0] == b"answer":
            assert plain(answers[number]) == plain(theirs), number
    # What is not known there is what the recording ends with.
    assert set(answers) >= set(their_answers)


def without_defaults(ours, theirs):
    """Their arguments, with what ours fills in or leaves to the worker."""
    if len(theirs) != 4 or not isinstance(theirs[3], dict):
        return theirs
    if (ours[2], theirs[2]) == ("rmdir", "rmfile"):
        # An old worker can do it with another command.
        return (*theirs[:2], "rmdir", {"dir": theirs[3]["path"]})
    filled = {key: value for key, value in ours[3].items() if key not in theirs[3]}
    assert set(filled) <= {"workdir", "maxsize", "compress", "mode", "keepstamp", "blocksize", "logfiles"}
    changed = {key: ours[3][key] for key in ("compress", "blocksize", "usePTY") if key in theirs[3]}
    assert changed.get("blocksize", 1) <= 640 * 1024
    known = {key: value for key, value in theirs[3].items() if key in ours[3] or key != "max_lines"}
    return (*theirs[:3], {**known, **filled, **changed})


def plain(answer):
    """Text for an end of a file is an old master's."""
    return [answer[0], answer[1], b"" if answer[2] == [b"unicode", b""] else answer[2]]


@pytest.mark.parametrize("name", ["shell", "fs", "mixed", "oldslave", "py2worker", "upload", "updir", "download"])
def test_our_master_hears_what_the_worker_reports(name):
    replay = MasterReplay(name).run()
    assert not [event for event in replay.events if isinstance(event, PeerClosed)]
    reported = {}
    for message in recorded(replay.session, "w2m")[0].values():
        if message[3] == b"update":
            command = replay.session.tokens["m2w"][message[2]].command
            for entries, _ in unjelly(message[5])[0]:
                for key, value in entries.items():
                    reported.setdefault(command, {}).setdefault(codec.as_text(key), []).append(value)
    for command, values in reported.items():
        batches = replay.batches["journal", command]
        updates = {key: value for batch in batches for key, value in batch.updates().items()}
        assert any(batch.complete for batch in batches)
        for channel in ("stdout", "stderr", "header"):
            text = b"".join(each if isinstance(each, bytes) else each.encode() for each in values.get(channel, ()))
            assert b"".join(batch.channel_bytes(channel) for batch in batches) == text
        if "rc" in values:
            assert updates["rc"] == values["rc"][-1]


# ---------------------------------------------------------------- our worker in the place of Buildbot's


class WorkerReplay:
    """Does what the recorded worker did."""

    def __init__(self, name):
        self.session = Session(name)
        self.worker = make("worker", name="w1", secret=SECRET)
        # Streams would make fewer and larger calls: here they are made one by one.
        self.worker._worker_streams.accepted = lambda command, *, reads: None
        self.said = Said(self.worker)
        self.asked, self.pending, self.events = {}, {}, []

    def run(self):
        for to, message in self.session.messages:
            if to == "m2w":
                first = isinstance(message, list) and message[0] == b"pb"
                self.worker.receive_data(banana_encode(message, not first))
                self.drain()
            elif message[0] == b"message" and message[3] not in (b"login", b"respond"):
                self.call(message)
            elif message[0] in (b"answer", b"error"):
                self.answer(message)
            if isinstance(message, list) and message[0] == b"message":
                self.asked[to, message[1]] = message[3].decode()
            if isinstance(message, list):
                answered = self.asked.get(("w2m" if to == "m2w" else "m2w", message[1])) if len(message) > 1 else None
                self.session.learn(to, message, answered)
        return self

    def call(self, message):
        broker = self.worker._broker
        broker._next_call = max(broker._next_call, message[1] - 1)
        target = self.session.target("w2m", message)
        if target == "perspective":
            self.worker._expect_reply(
                self.worker._broker.call(self.worker._perspective, message[3].decode()),
                0,
                lambda value: None,
            )
        else:
            self.worker.send(codec.decode_object(target, message[3].decode(), unjelly(message[5]), {}))
        self.said.collect()

    def answer(self, message):
        number = self.pending.pop(message[1], None)
        if number is None:
            # Answered without asking anybody.
            return
        call, request = number
        value = unjelly(message[2])
        if isinstance(value, Failure):
            self.worker.fail(call, *failures.describe(value))
        elif isinstance(request, SetBuilderList):
            self.worker.reply(call, list(value))
        else:
            self.worker.reply(call, codec.as_value(value))
        self.said.collect()

    def drain(self):
        while (event := self.worker.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, Called):
                self.pending[self.worker._asked[event.call][0]] = (event.call, event.request)
        self.said.collect()


@pytest.mark.parametrize("name", [name for name in WORKERS if not name.startswith(("oldslave", "py2"))])
def test_our_worker_says_what_buildbots_said(name):
    replay = WorkerReplay(name).run()
    calls, answers = replay.said.collect()
    their_calls, their_answers = recorded(replay.session, "w2m")
    assert {number: call[1:5] for number, call in calls.items()} == {
        number: call[1:5] for number, call in their_calls.items()
    }
    for number, theirs in their_calls.items():
        if b"Failure" not in repr(theirs).encode():
            assert calls[number] == theirs
    for number, theirs in their_answers.items():
        ours = answers[number]
        if theirs[0] == b"answer" and replay.asked["m2w", number] == "setBuilderList":
            assert unjelly(ours[2]) == unjelly(theirs[2])
        elif theirs[0] == b"answer":
            assert ours == theirs
        else:
            assert failures.describe(unjelly(ours[2])) == failures.describe(unjelly(theirs[2]))


def test_a_wrong_password_is_told():
    for name in ("badlogin-name", "badlogin-password"):
        replay = WorkerReplay(name).run()
        assert replay.events == [Refused("credentials", "unknown worker or wrong secret")]
        assert replay.worker.eof_to_send


def test_a_duplicate_is_told():
    [refused] = WorkerReplay("duplicate-second").run().events
    assert refused == Refused("duplicate", "the name is attached already")


def test_a_worker_serves_before_its_login_is_answered():
    events = WorkerReplay("login").run().events
    assert isinstance(events[0], LoggedIn)
    assert [type(event.request).__name__ for event in events[1:4]] == ["Print", "GetWorkerInfo", "SetBuilderList"]


@pytest.mark.parametrize("name", ["oldslave", "py2worker"])
def test_workers_of_python_2_say_who_they_are(name):
    replay = MasterReplay(name).run()
    info = next(event.value for event in replay.events if isinstance(event, Replied) and isinstance(event.value, dict))
    assert info["version"] in ("0.8.14", "3.11.1")
    assert info["worker_commands"]["shell"]
    assert info["admin"] == "Admin Person <admin@example.org>\n"
    assert not [event for event in replay.events if isinstance(event, CallFailed) and event.call == GetWorkerInfo]
