"""The Broker of Perspective Broker: calls and answers, objects by number, and how often each was sent.

Each side numbers the objects that it exports. Here they are tokens: small frozen values that say what is meant; the
same token is the same object. Of the peer's objects only `Remote` numbers are known.

References that come with a message are given back (`decref`) when the next message is read, but for those that were
kept. A peer that never gives anything back costs it its own numbers: what we forget (`revoke`) we forget.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, final

import attrs

from tailrace._core import BananaDecoder, banana_answers, banana_encode, send_to
from tailrace.dialects.buildbot.pb.jelly import Failure, JellyError, Local, Remote, jelly, remotes, unjelly
from tailrace.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from tailrace._core import BananaOutput, Sexp

VERSION: Final = 6
REFERENCES_MAX: Final = 1024
"""What a real peer exports at most, and so do we."""
KEPT_MAX: Final = 8192
"""References of the peer's that we hold. It can export no more than `REFERENCES_MAX` at a time."""
UNANSWERED_PAUSE: Final = 20_000
"""Calls of the peer that we have not answered: above that no more should be read. A worker waits for no answer before
its next update, and an update may be a single short line."""
UNANSWERED_MAX: Final = 500_000
"""More than one read brings beyond that: the peer repeats itself."""
QUEUED_BYTES_MAX: Final = 256 << 20
"""A peer that goes on calling while so much waits for it does not read its answers."""

ROOT: Final = b"root"
INVALID_OBJECT: Final = Failure("twisted.spread.pb.Error", "Invalid Object ID", ("twisted.spread.pb.Error",))


@final
@attrs.frozen
class Called:
    """The peer calls a method of `target`, which is a token of ours or `ROOT`."""

    call: int
    target: Hashable
    method: str
    args: Sequence[object]
    kwargs: Mapping[str, object]


@final
@attrs.frozen
class Answered:
    """The peer's answer to a call of ours."""

    call: int
    value: object


@final
@attrs.frozen
class Failed:
    """The peer's method raised."""

    call: int
    failure: Failure


@final
@attrs.frozen
class Output:
    """The worker calls `update` of `target`, once or several times in a row, with nothing but text."""

    calls: Sequence[int]
    target: Hashable
    texts: BananaOutput


Message: TypeAlias = Called | Answered | Failed | Output


@final
class Broker:
    """One side of one connection. `server` speaks first."""

    def __init__(self, side: Literal["server", "client"]) -> None:
        self._side = side
        self._decoder = BananaDecoder()
        self._state: Literal["profile", "open"] = "profile"
        self._vocabulary = True
        self._out = bytearray()
        self._error: RemoteProtocolError | None = None
        self._next_call = 0
        self._waiting: set[int] = set()
        self._unanswered: set[int] = set()
        self._next_luid = 0
        self._exports: dict[int, _Export] = {}
        self._luids: dict[Hashable, int] = {}
        # The peer's objects: how often each was sent to us and is kept, and those of the last message.
        self._kept: Counter[int] = Counter()
        self._fresh: Counter[int] = Counter()
        if side == "server":
            self._write((b"pb", b"none"), vocabulary=False)

    # ------------------------------------------------------------ from the peer

    def receive_data(self, data: bytes | bytearray) -> None:
        """Bytes that arrived."""
        self._decoder.receive_data(data)

    def receive_from(self, fd: int, max_bytes: int) -> int | None:
        """Bytes that are there to be received: see `Direct`."""
        return self._decoder.receive_from(fd, max_bytes)

    def next_message(self) -> Message | None:
        """What the peer said next. References in the message before that were not kept are given back.

        Raises:
            RemoteProtocolError: the peer broke the protocol; for ever after.
        """
        if self._error is not None:
            raise self._error
        try:
            while True:
                self._give_back_fresh()
                if (output := self._next_output()) is not None:
                    return output
                expression = self._decoder.next_expression()
                if expression is None:
                    return None
                if self._state == "profile":
                    self._agree(expression)
                elif (message := self._read(expression)) is not None:
                    return message
        except JellyError as error:
            self._error = RemoteProtocolError(f"Perspective Broker: {error}")
            raise self._error from error
        except RemoteProtocolError as error:
            self._error = error
            raise

    def _agree(self, expression: Sexp) -> None:
        """On the profile of banana; then both say the version."""
        if self._side == "client":
            if not isinstance(expression, list) or b"pb" not in expression:
                raise RemoteProtocolError("there is no Perspective Broker: it offers no profile `pb`")
            # Put before what was said already: `call` may come before the first byte of the peer's.
            said, self._out = self._out, bytearray()
            self._write(b"pb", vocabulary=False)
            self._write((b"version", VERSION))
            self._out += said
        else:
            if expression not in (b"pb", b"none"):
                raise RemoteProtocolError(f"no profile of banana: {expression!r:.80}")
            self._vocabulary = expression == b"pb"
            self._write((b"version", VERSION))
        if self._vocabulary:
            self._decoder.use_vocabulary()
        self._state = "open"

    def _read(self, expression: Sexp) -> Message | None:
        match expression:
            case [b"message", int(call), int() | bytes() as target, bytes(method), int(wanted), args, kwargs]:
                return self._read_call(call, target, method, bool(wanted), args, kwargs)
            case [b"answer", int(call), sexp]:
                self._expect_answer(call)
                value = unjelly(sexp)
                self._fresh.update(remote.luid for remote in remotes(value))
                return Answered(call, value)
            case [b"error", int(call), sexp]:
                self._expect_answer(call)
                failure = unjelly(sexp)
                return Failed(call, failure if isinstance(failure, Failure) else Failure("unknown", repr(failure)[:80]))
            case [b"decref", int(luid)]:
                self._decref(luid)
            case [b"version", number]:
                if number != VERSION:
                    raise RemoteProtocolError(f"version {number!r:.20} of Perspective Broker, not {VERSION}")
            case [b"didNotUnderstand", *_] | [b"cachemessage" | b"decache" | b"uncache", *_]:
                # Nobody here makes what they are about.
                pass
            case [bytes(name), *_]:
                raise RemoteProtocolError(f"a message {name[:64]!r} that is none, or with other elements than it has")
            case _:
                raise RemoteProtocolError("an expression that is no message")
        return None

    def _read_call(
        self, call: int, target: int | bytes, method: bytes, wanted: bool, args: object, kwargs: object
    ) -> Called | None:
        self._check_calls((call,))
        if not wanted:
            self._unanswered.discard(call)
            # Whoever answers it answers nobody.
            call = -1
        try:
            positional, named = unjelly(cast("Sexp", args)), unjelly(cast("Sexp", kwargs))
        except JellyError as error:
            self.fail(call, Failure("twisted.spread.jelly.InsecureJelly", str(error)))
            return None
        if not isinstance(positional, tuple | list) or not isinstance(named, dict):
            self.fail(call, Failure("builtins.TypeError", "the arguments are a tuple and a dictionary"))
            return None
        self._fresh.update(remote.luid for remote in remotes((positional, named)))
        if isinstance(target, int):
            export = self._exports.get(target)
            token: Hashable = export.token if export is not None else None
        else:
            token = ROOT if target == ROOT and self._side == "server" else None
        if token is None:
            self.fail(call, INVALID_OBJECT)
            return None
        names = {key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): named[key] for key in named}
        return Called(call, token, method.decode("utf-8", "replace"), positional, names)

    def _next_output(self) -> Output | None:
        """Most of what a master receives, and by itself much cheaper."""
        while self._state == "open" and self._side == "server" and (found := self._decoder.next_output()) is not None:
            calls = found.calls
            self._check_calls(calls)
            export = self._exports.get(found.target)
            if export is not None:
                return Output(calls, export.token, found)
            for call in calls:
                self.fail(call, INVALID_OBJECT)
        return None

    def _check_calls(self, calls: Sequence[int]) -> None:
        """They are to be answered, if they may be."""
        unanswered = len(self._unanswered)
        self._unanswered.update(calls)
        if len(self._unanswered) != unanswered + len(calls):
            raise RemoteProtocolError("a call that is there already")
        if len(self._unanswered) > UNANSWERED_MAX:
            raise RemoteProtocolError(f"more than {UNANSWERED_MAX} calls that wait for an answer")
        if len(self._out) > QUEUED_BYTES_MAX:
            raise RemoteProtocolError(f"calls, while it leaves {QUEUED_BYTES_MAX} bytes of answers unread")

    def _expect_answer(self, call: int) -> None:
        if call not in self._waiting:
            raise RemoteProtocolError(f"an answer to call {call}, which nobody waits for")
        self._waiting.discard(call)

    def _decref(self, luid: int) -> None:
        export = self._exports.get(luid)
        if export is None:
            # Also what was revoked: its owner may be late.
            if not 0 < luid <= self._next_luid:
                raise RemoteProtocolError(f"object {luid} is given back, and never was given")
            return
        export.count -= 1
        if not export.count:
            self._forget(luid)

    # ------------------------------------------------------------ to the peer

    def call(self, target: Remote | Literal[b"root"], method: str, *args: object, **kwargs: object) -> int:
        """Call the peer. `Answered` or `Failed` comes with this number.

        Raises:
            LocalProtocolError: something in it cannot be sent. Nothing was.
        """
        call = self._next_call + 1
        luid = target.luid if isinstance(target, Remote) else target
        # Method names have a wire form of their own: byte strings.
        self._write((b"message", call, luid, method.encode(), 1, jelly(args), jelly(kwargs)))
        self._next_call = call
        self._waiting.add(call)
        return call

    def answer(self, call: int, value: object) -> None:
        """Answer a call of the peer, once; what is not waited for any more is not said."""
        if call in self._unanswered:
            self._write((b"answer", call, jelly(value)))
            self._unanswered.discard(call)

    def answer_all(self, calls: Sequence[int], value: int) -> None:
        """Answer several calls alike."""
        waiting = [call for call in calls if call in self._unanswered]
        self._unanswered.difference_update(waiting)
        self._out += banana_answers(waiting, value, self._vocabulary)

    def fail(self, call: int, failure: Failure) -> None:
        """Answer a call of the peer: it raised."""
        if call in self._unanswered:
            self._write((b"error", call, jelly(failure)))
            self._unanswered.discard(call)

    def export(self, token: Hashable) -> Remote:
        """A reference to an object of ours, to be put into one call or answer: it counts as sent.

        Raises:
            LocalProtocolError: too many are out there.
        """
        luid = self._luids.get(token)
        if luid is None:
            if len(self._exports) >= REFERENCES_MAX:
                raise LocalProtocolError(f"Perspective Broker has {REFERENCES_MAX} references, and all are in use")
            self._next_luid = luid = self._next_luid + 1
            self._luids[token] = luid
            self._exports[luid] = _Export(token)
        self._exports[luid].count += 1
        return Remote(luid)

    def revoke(self, token: Hashable) -> None:
        """Forget an object of ours, whether or not the peer has given it back."""
        luid = self._luids.get(token)
        if luid is not None:
            self._forget(luid)

    def keep(self, reference: Remote) -> None:
        """Do not give this reference back, which came with the last message.

        Raises:
            RemoteProtocolError: the peer has more of them than it may.
        """
        count = self._fresh.pop(reference.luid, 0)
        self._kept[reference.luid] += count
        if len(self._kept) > KEPT_MAX:
            raise RemoteProtocolError(f"more than {KEPT_MAX} references")

    def release(self, reference: Remote) -> None:
        """Give back what was kept, once."""
        count = self._kept.pop(reference.luid, 0)
        if count > 1:
            self._kept[reference.luid] = count - 1
        if count:
            self._write((b"decref", reference.luid))

    def check(self, value: object) -> None:
        """Raise `LocalProtocolError` if this cannot be sent."""
        banana_encode(jelly(value), self._vocabulary)

    def data_to_send(self, max_bytes: int) -> bytes:
        """What the peer is to get."""
        if not self.to_send:
            return b""
        data = bytes(memoryview(self._out)[:max_bytes])
        del self._out[: len(data)]
        return data

    def send_to(self, fd: int, max_bytes: int) -> int:
        """What the peer is to get, to a socket as far as it takes it; how much that was."""
        sent = send_to(fd, self._out, max_bytes) if self.to_send else 0
        del self._out[:sent]
        return sent

    # ------------------------------------------------------------ queries

    @property
    def to_send(self) -> bool:
        """There is something to send now."""
        # The server speaks first.
        return bool(self._out) and (self._side == "server" or self._state != "profile")

    @property
    def queued(self) -> int:
        """Bytes that wait for `data_to_send`."""
        return len(self._out)

    @property
    def unanswered(self) -> int:
        """Calls of the peer that wait for our answer."""
        return len(self._unanswered)

    @property
    def waiting(self) -> int:
        """Calls of ours without an answer."""
        return len(self._waiting)

    @property
    def exported(self) -> int:
        """Objects of ours that are out there."""
        return len(self._exports)

    def _write(self, expression: Sexp, *, vocabulary: bool | None = None) -> None:
        self._out += banana_encode(expression, self._vocabulary if vocabulary is None else vocabulary)

    def _forget(self, luid: int) -> None:
        del self._luids[self._exports.pop(luid).token]

    def _give_back_fresh(self) -> None:
        if self._fresh:
            for luid, count in self._fresh.items():
                for _ in range(count):
                    self._write((b"decref", luid))
            self._fresh.clear()


@final
@attrs.define
class _Export:
    token: Hashable
    count: int = 0


__all__ = ["ROOT", "Answered", "Broker", "Called", "Failed", "Local", "Message", "Output", "Remote"]
