"""The vocabulary: what can be said between a master and a worker, on any wire.

A dialect turns bytes into these classes and back; `link` hands them to Impls. They are frozen, and they are not
serializable: each dialect converts them by hand in its `codec.py`. In the order of a connection's life: login, calls,
streams, the end; then `Updates`, which is what a `RemoteCommandImpl` sees of a journal.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, final

import attrs

from tailrace._core import Batch, Gap, Receipt, Record

__all__ = ["Gap", "Receipt", "Record", "Updates", "Value"]

Value: TypeAlias = "bool | int | float | str | bytes | Sequence[Value] | Mapping[str, Value] | None"
"""What arguments, results and updates are made of."""

Role: TypeAlias = Literal["journal", "upload", "download"]
"""What a stream carries. It is named by (role, command id)."""

Channel: TypeAlias = tuple[str, str | None]
"""`("stdout", None)`, `("stderr", None)`, `("header", None)` or `("log", name)`."""

# ---------------------------------------------------------------- login


@final
@attrs.frozen(kw_only=True)
class LoginAsked:
    """At the master: a worker says who it is. Nothing is proven yet. Answer with `admit` or `refuse`."""

    name: str
    instance: str
    software: str


@final
@attrs.frozen(kw_only=True)
class LoggedIn:
    """Both sides are proven. `peer` is the master's id, at the master the worker's instance."""

    peer: str
    software: str


@final
@attrs.frozen
class Refused:
    """At the worker: the master does not let it in."""

    reason: str
    text: str


# ---------------------------------------------------------------- calls, master to worker


@final
@attrs.frozen
class Print:
    """Write a message to the worker's log file."""

    message: str


@final
@attrs.frozen
class GetWorkerInfo:
    """What the worker says of itself: a map."""


@final
@attrs.frozen
class SetBuilderList:
    """These builders, each (name, directory), and no others. The result is the list of their names."""

    builders: tuple[tuple[str, str], ...]


@final
@attrs.frozen
class StartBuild:
    """A build begins in this builder."""

    builder: str


ImplKind: TypeAlias = Literal["FileWriter", "FileReader"]


@final
@attrs.frozen(kw_only=True)
class StartCommand:
    """Start a command. The result says that it was accepted.

    `impls` names the arguments that stand for an object of the master; they are not in `args`.
    """

    builder: str
    command: str
    name: str
    args: Mapping[str, Value]
    impls: Mapping[str, ImplKind]


@final
@attrs.frozen
class InterruptCommand:
    """Stop a command. An unknown one is no error."""

    builder: str
    command: str
    why: str


@final
@attrs.frozen
class Shutdown:
    """End the worker's process."""


@final
@attrs.frozen
class ResumeCommand:
    """Go on with a command that the worker holds: with its journal from offset `next`, with its upload from `upload`.

    The result is a map: the journal goes on at `offset`, where both chains agree if `agrees`; `download` is where the
    worker wants the rest of its download.
    """

    command: str
    next: int
    chain: bytes
    upload: int | None = None


@final
@attrs.frozen
class ForgetCommand:
    """Interrupt what runs and drop the journal of a command that the worker holds."""

    command: str


# ---------------------------------------------------------------- calls, worker to master


@final
@attrs.frozen(kw_only=True)
class HeldCommand:
    """One command that a worker holds for this master."""

    command: str
    builder: str
    name: str
    begin: int
    end: int
    chain: bytes
    running: bool


@final
@attrs.frozen
class Held:
    """What the worker holds for this master: its first call. The answer says that the worker is attached."""

    commands: tuple[HeldCommand, ...]


@final
@attrs.frozen
class AskShutdown:
    """The worker wants to end: give it nothing more, and shut it down when nothing runs. Answered at once."""


Request: TypeAlias = (
    Print
    | GetWorkerInfo
    | SetBuilderList
    | StartBuild
    | StartCommand
    | InterruptCommand
    | Shutdown
    | ResumeCommand
    | ForgetCommand
    | Held
    | AskShutdown
)


@final
@attrs.frozen
class Called:
    """The peer calls. Answer with `reply` or `fail`, once."""

    call: int
    request: Request


@final
@attrs.frozen
class Replied:
    """The peer's answer to one of our calls."""

    call: int
    value: Value


@final
@attrs.frozen
class CallFailed:
    """The peer's method raised."""

    call: int
    type: str
    text: str


# ---------------------------------------------------------------- streams


@final
@attrs.frozen
class StreamOpened:
    """The peer opens a stream to us."""

    stream: int
    role: Role
    name: str
    offset: int


@final
@attrs.frozen
class StreamReadable:
    """Whole records can be taken, or the end was reached. Said once, until `take` has been called."""

    stream: int


@final
@attrs.frozen
class StreamWritable:
    """A stream of ours has room again, after it had none."""

    stream: int


@final
@attrs.frozen
class StreamProgress:
    """The receiver of a stream of ours has taken it up to `next`, has it safe up to `durable`; `done`: all of it."""

    stream: int
    next: int
    durable: int
    done: bool


@final
@attrs.frozen
class StreamReset:
    """The sender of a stream gave up. What was not taken is gone."""

    stream: int
    reason: str


@final
@attrs.frozen
class StreamStopped:
    """The receiver of a stream of ours gave up. It is over."""

    stream: int
    reason: str


# ---------------------------------------------------------------- liveness and the end


@final
@attrs.frozen
class Ponged:
    """The answer to a ping of ours."""

    nonce: int


@final
@attrs.frozen
class PeerClosed:
    """The peer closed, or its transport ended (reason `eof`)."""

    reason: str
    text: str


Event: TypeAlias = (
    LoginAsked
    | LoggedIn
    | Refused
    | Called
    | Replied
    | CallFailed
    | StreamOpened
    | StreamReadable
    | StreamWritable
    | StreamProgress
    | StreamReset
    | StreamStopped
    | Ponged
    | PeerClosed
)

# ---------------------------------------------------------------- updates


@final
class Updates(Mapping[str, object]):
    """What a command reported since the last call: the document's keys and values, decoded when asked for.

    `stdout`, `stderr`, `header` are `str`, all text of that channel in this call; `log` is `(name, str)`; the rest as
    the worker sent it (`rc`, `elapsed`, `stat`, …). `records` is the same output as bytes, in order, not decoded.
    """

    __slots__ = ("_begun", "_encoding", "_kept", "_keys", "_texts", "batch", "receipt_agrees")

    batch: Batch
    """The records themselves, for those who keep them."""

    receipt_agrees: bool | None
    """Whether the worker's receipt says what was counted here. `None`: the receipt is not in this call."""

    def __init__(
        self,
        batch: Batch,
        *,
        encoding: str = "utf-8",
        begun: Mapping[Channel, bytes] | None = None,
        kept: Mapping[Channel, bytes] | None = None,
        texts: Mapping[Channel, str] | None = None,
        receipt_agrees: bool | None = None,
    ) -> None:
        """`begun`: bytes of earlier calls that go before a channel's text; `kept`: bytes at its end that wait for a
        later call; `texts`: channels that were decoded already, since their encoding has a state."""
        self.batch = batch
        self.receipt_agrees = receipt_agrees
        self._encoding = encoding
        self._begun = begun or {}
        self._kept = kept or {}
        self._texts = dict(texts) if texts else {}
        self._keys: dict[str, object] | None = None

    @property
    def records(self) -> list[Record]:
        """The output in order, without any decoding."""
        return self.batch.records()

    @property
    def gaps(self) -> list[Gap]:
        """What was not delivered, and why."""
        return self.batch.gaps()

    @property
    def receipt(self) -> Receipt | None:
        """The worker's receipt, in the last call of a command."""
        return self.batch.receipt()

    @property
    def start(self) -> int:
        """Where this call begins in the journal."""
        return self.batch.start

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.batch.end

    def __getitem__(self, key: str) -> object:
        value = self._table()[key]
        if isinstance(value, _Undecoded):
            text = self._text(value.channel)
            value = (value.channel[1], text) if key == "log" else text
            self._table()[key] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())

    def __contains__(self, key: object) -> bool:
        return key in self._table()

    def __repr__(self) -> str:
        return f"<Updates {self.start}..{self.end}: {', '.join(self._table())}>"

    def _table(self) -> dict[str, object]:
        if self._keys is None:
            table: dict[str, object] = {}
            for channel in (*self.batch.channels(), *self._begun):
                table.setdefault(channel[0], _Undecoded(channel))
            for key, value in self.batch.updates().items():
                table[key] = tuple(value) if key == "stat" and isinstance(value, list) else value
            self._keys = table
        return self._keys

    def _text(self, channel: Channel) -> str:
        if channel in self._texts:
            return self._texts[channel]
        data = self._begun.get(channel, b"") + self.batch.channel_bytes(*channel)
        kept = len(self._kept.get(channel, b""))
        return codecs.decode(data[: len(data) - kept] if kept else data, self._encoding, "replace")


@final
@attrs.frozen
class _Undecoded:
    channel: Channel
