"""The Rust core, as Python sees it. Checked against the binary by stubtest.

Bytes cross in batches, never per line. Everything here is sans-IO but for what says that it reads or writes files.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

from typing_extensions import Buffer

__version__: Final[str]

Value: TypeAlias = None | bool | int | float | str | bytes | Sequence[Value] | Mapping[str, Value]
"""What a `value` of PROTOCOL.md section 1 may hold. Tuples go out as arrays; arrays come back as lists."""

def encode_value(value: Value, /) -> bytes: ...
def decode_value(data: Buffer, /) -> Value: ...

# ---------------------------------------------------------------- session (PROTOCOL.md sections 2-5, 8)

@final
class LoginAsked:
    name: str
    instance: str
    software: str
    capabilities: list[str]

@final
class LoggedIn:
    peer: str  # at the worker: the master's id; at the master: the worker's instance
    software: str
    capabilities: list[str]
    version: int

@final
class Refused:
    reason: str
    text: str

@final
class Called:
    call: int
    method: str
    args: dict[str, Value]

@final
class Replied:
    call: int
    value: Value

@final
class CallFailed:
    call: int
    type: str
    text: str

@final
class StreamOpened:
    stream: int
    role: Literal["journal", "upload", "download"]
    name: str
    offset: int

@final
class StreamReadable:
    """Whole records can be taken, or the stream's end was reached. Said once, until `take` has been called."""

    stream: int

@final
class StreamWritable:
    """A send stream has room again, after `room` was 0."""

    stream: int

@final
class StreamProgress:
    """The receiver of a send stream moved: `next` was taken, `durable` is safe. After END, durable == final ends it."""

    stream: int
    next: int
    durable: int
    done: bool

@final
class StreamReset:
    """The sender gave up. What was not taken is gone."""

    stream: int
    reason: str

@final
class StreamStopped:
    """The receiver of a send stream gave up. The session has sent RESET already."""

    stream: int
    reason: str

@final
class Ponged:
    nonce: int

@final
class PeerClosed:
    """CLOSE came, or the transport ended (reason "eof")."""

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

@final
class Session:
    """One session of the native wire, either role.

    After any `receive_*` or command: drain `next_event` and `data_to_send`; and `next_event` once more after
    `data_to_send`, which makes room and says so (`StreamWritable`).

    `write`, `write_block`, `write_journal` and `end` raise LocalProtocolError for a stream that was ended, reset or
    stopped, `sent` for one that is over; all else that is said of a stream that is over does nothing, because the peer
    may have ended it a moment ago. What has arrived can be taken also when the session is over.
    """

    def __new__(
        cls,
        role: Literal["master", "worker"],
        *,
        id: str,  # the master's id, or the worker's instance
        nonce: bytes,  # 32 random bytes
        name: str = "",  # worker
        secret: bytes = b"",  # worker
        stream_window: int = 4194304,
        connection_window: int = 33554432,
        streams_max: int = 4096,
        software: str = "",
        capabilities: Sequence[str] = (),
    ) -> Session: ...
    # from the peer
    def receive_data(self, data: Buffer, /) -> None: ...
    def receive_eof(self) -> None: ...
    # drains
    def next_event(self) -> Event | None: ...  # raises RemoteProtocolError, in order, for ever after
    def data_to_send(self, max_bytes: int = 262144, /) -> bytes: ...  # b"" when there is nothing
    @property
    def eof_to_send(self) -> bool: ...  # close the transport once data_to_send is empty
    # the same with a socket that does not block, without an object for the bytes and without the GIL; raise OSError
    def receive_from(self, fd: int, max_bytes: int, /) -> int | None: ...  # 0: it has ended; None: nothing yet
    def send_to(self, fd: int, max_bytes: int, /) -> bool: ...  # False: there is more
    # commands; LocalProtocolError before any byte is made
    def admit(self, secret: Buffer, /) -> bool: ...  # master; the right proof: LoggedIn follows. False: refused
    # ^ an empty secret is nobody's: give it for an unknown name, which then takes the same work and the same words
    def refuse(self, reason: str, text: str, /) -> None: ...  # master
    def call(self, method: str, args: Mapping[str, Value], /) -> int: ...
    def reply(self, call: int, value: Value, /) -> None: ...
    def fail(self, call: int, type: str, text: str, /) -> None: ...
    def ping(self, nonce: int, /) -> None: ...
    def close(self, reason: str, text: str = "", /) -> None: ...
    # compression; both sides need the capability "zstd", else nothing happens
    def compress(self, level: int, bytes: int, /) -> None: ...  # so many bytes of streams, where the peer welcomes it
    @property
    def is_held(self) -> bool: ...  # bytes of streams wait for credit
    def welcome_compressed(self, welcome: bool, /) -> None: ...  # the peer may send so, or not any more
    # sending streams
    def open(self, role: Literal["journal", "upload", "download"], name: str, offset: int = 0, /) -> int: ...
    def room(self, stream: int, /) -> int: ...  # bytes that may be queued now; 0: wait for StreamWritable
    def write(self, stream: int, data: Buffer, /) -> None: ...  # whole records or parts of them, at most `room`
    def write_block(self, stream: int, block: Block, start: int = 0, /) -> None: ...
    # ^ all of it from `start` on, without a copy; only where there is any room
    def write_journal(self, stream: int, journal: Journal, /) -> int: ...  # all of it; bytes that are new to the stream
    # ^ read when its turn comes; what it grows by meanwhile follows; StreamWritable when all was sent
    def sent(self, stream: int, /) -> int: ...  # the offset up to which bytes were queued
    def end(self, stream: int, /) -> None: ...
    def reset(self, stream: int, reason: str, /) -> None: ...
    # receiving streams
    def take(self, stream: int, max_bytes: int, /) -> Batch | None: ...  # whole records; None: nothing now
    def ended(self, stream: int, /) -> bool: ...  # END came and everything was taken; False after a reset
    def settle(self, stream: int, next: int, durable: int, /) -> None: ...  # credit returns; WINDOW is sent when due
    def stop(self, stream: int, reason: str, /) -> None: ...
    # queries
    @property
    def may_come(self) -> int: ...  # bytes more that the stream which brought something last may bring
    def statistics(self) -> dict[str, int]: ...
    # ^ bytes_sent, bytes_received, bytes_saved, unsettled, queued, streams, calls

# ---------------------------------------------------------------- records (PROTOCOL.md sections 6 and 7)

@final
class Record:
    """A piece of one channel's bytes. `len` and `memoryview` copy nothing."""

    @property
    def channel(self) -> Literal["stdout", "stderr", "header", "log"]: ...
    @property
    def name(self) -> str | None: ...
    @property
    def data(self) -> bytes: ...
    @property
    def lines(self) -> int: ...  # lines that begin in this record
    @property
    def times(self) -> list[float]: ...  # Unix seconds of each of them
    @property
    def partial(self) -> bool: ...  # the last byte is not a newline
    @property
    def continues(self) -> bool: ...  # the first byte belongs to a line that began earlier
    @property
    def time(self) -> float: ...  # of the first byte
    @property
    def offset(self) -> int: ...  # of the record in its journal
    def cut(self, lines: int, /) -> Record: ...  # without what is before its `lines`-th line start (0: the first)
    def encode(self) -> bytes: ...  # as on the wire; of a cut record what is left, which must not be empty
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Gap:
    @property
    def channel(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def bytes(self) -> int: ...
    @property
    def lines(self) -> int: ...
    @property
    def reason(self) -> str: ...

@final
class Batch:
    """Whole records of one stream, [start, end). Decoding is lazy; a malformed record raises RemoteProtocolError when made."""

    @staticmethod
    def parse(data: Buffer, start: int = 0, /) -> Batch: ...  # bytes that are whole records
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def raw(self) -> memoryview: ...  # the records as on the wire
    def __len__(self) -> int: ...  # number of records
    def records(self) -> list[Record]: ...  # log records only, in order
    def parts(
        self,
    ) -> list[
        Batch
    ]: ...  # split so that none holds two different named logs, nor records behind `complete`; mostly [self]
    def channels(
        self,
    ) -> list[tuple[str, str | None]]: ...  # which (channel, log name) occur, in order of first occurrence
    def channel_bytes(self, channel: str, name: str | None = None, /) -> bytes: ...  # all data of one channel, joined
    def tails(self, begun: dict[tuple[str, str | None], bytes], /) -> dict[tuple[str, str | None], bytes]: ...
    # ^ of each channel that occurs: the bytes (0-3) at the end of what begun has for it + its data that begin a UTF-8
    #   character without finishing it; channels without any are left out
    def updates(self) -> dict[str, Value]: ...  # all update records merged, later ones win
    def gaps(self) -> list[Gap]: ...
    @property
    def complete(self) -> bool: ...  # holds the complete record
    def failure(self) -> tuple[str, str] | None: ...  # of the complete record: (type, text)
    def receipt(self) -> Receipt | None: ...
    # transfers
    def chunks(self) -> list[memoryview]: ...
    def chunk_bytes(self) -> bytes: ...  # joined
    @property
    def chunk_size(self) -> int: ...  # their bytes together
    def utime(self) -> tuple[float, float] | None: ...
    @property
    def unpack(self) -> bool: ...
    def close(self) -> tuple[int, bytes] | None: ...  # (bytes, blake3)

@final
class Receipt:
    @property
    def chain(self) -> bytes: ...
    @property
    def records(self) -> int: ...
    @property
    def channels(self) -> dict[str, tuple[int, int, int, int]]: ...  # bytes, lines, bytes in gaps, bytes masked

@final
class Ledger:
    """What the receiver counts for itself: chain and channels over all batches so far. Releases the GIL while it hashes."""

    def __new__(cls) -> Ledger: ...
    @staticmethod
    def resumed(offset: int, chain: bytes, /) -> Ledger: ...  # goes on there; `agrees` then compares the chain alone
    def add(self, batch: Batch, /) -> None: ...
    @property
    def chain(self) -> bytes: ...
    @property
    def offset(self) -> int: ...
    def receipt(self) -> Receipt: ...  # over what was added, receipt records excepted
    def agrees(self, receipt: Receipt, /) -> bool: ...

@final
class Journal:
    """An append-only sequence of records: in memory (`Journal()`), or a supervisor's ring (`Journal.map`)."""

    def __new__(cls) -> Journal: ...
    @staticmethod
    def map(path: str, /) -> Journal: ...  # the ring file of a supervisor; only read here
    @property
    def begin(self) -> int: ...  # bytes before it were released
    @property
    def end(self) -> int: ...
    @property
    def ended(self) -> bool: ...  # the receipt stands
    def batch(self, offset: int, max_bytes: int, /) -> Batch | None: ...  # whole records from `offset`
    def release(
        self, offset: int, /
    ) -> bool: ...  # forget the records before; True: the writer waits for it, ring its bell
    def chain_at(
        self, offset: int, /
    ) -> bytes | None: ...  # over all records before; None: no record boundary in [begin, end]
    def wants_bell(self) -> bool: ...  # ring: ask to be told when it grows. True: nothing new since `end` was read
    @property
    def label(self) -> bytes | None: ...  # ring: what `set_label` wrote, in this process or an earlier one
    def set_label(self, label: bytes, /) -> bool: ...  # False: longer than 3,768 bytes, empty, or not a ring
    # in memory only
    def append(self, channel: str, data: Buffer, wall_us: int, mono_us: int, name: str | None = None, /) -> None: ...
    def gather(self, output: BananaOutput, wall_us: int, mono_us: int, /) -> None: ...  # as one `append` for each text
    def is_inside_line(self, channel: str, name: str | None, /) -> bool: ...  # what was appended ends within a line
    def update(self, values: Mapping[str, Value], /) -> None: ...
    def gap(self, channel: str, name: str | None, bytes: int, lines: int, reason: str, /) -> None: ...
    def finish(self, failure: tuple[str, str] | None = None, /) -> None: ...  # complete, then receipt

def chunk_records(data: Buffer, /) -> bytes: ...  # data as chunk records of at most 1 MiB
def utime_record(accessed: float, modified: float, /) -> bytes: ...
def unpack_record() -> bytes: ...
def close_record(length: int, blake3: bytes, /) -> bytes: ...

@final
class Blake3:
    """Releases the GIL for pieces of 64 KiB or more."""

    def __new__(cls) -> Blake3: ...
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...
    @property
    def length(self) -> int: ...

@final
class Block(Buffer):
    """A piece of a file as a chunk record, in memory of a `BlockReader`'s that is used again when the block is gone."""

    def __len__(self) -> int: ...  # of the record
    @property
    def size(self) -> int: ...  # of the piece

@final
class BlockReader:
    """Reads files into blocks. Releases the GIL."""

    def __new__(cls) -> BlockReader: ...
    # the next piece, over which the digest went, too; None at the end. Raises OSError
    def read(self, descriptor: int, digest: Blake3, /) -> Block | None: ...

def write_chunks(descriptor: int, batch: Batch, digest: Blake3, /) -> None: ...  # and the digest goes over them

@final
class TarEntry:
    """One entry of an archive. Whether its path is safe is for whoever unpacks it to say."""

    @property
    def path(self) -> bytes: ...  # never empty, no NUL in it
    @property
    def kind(self) -> Literal["file", "directory", "symlink", "hardlink", "device", "fifo"]: ...
    @property
    def mode(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def target(self) -> bytes: ...

@final
class TarDecoder:
    """Reads one POSIX or GNU tar stream, strictly. After any `receive_*`: drain `next_event`."""

    def __new__(cls) -> TarDecoder: ...
    def receive_data(self, data: Buffer, /) -> None: ...
    def receive_eof(self) -> None: ...
    def next_event(self) -> TarEntry | memoryview | None: ...  # memoryview: data of the last entry. UnsafeArchive
    @property
    def finished(self) -> bool: ...  # the archive's end was read

@final
class TarEncoder:
    """Makes one POSIX tar stream (pax where needed). LocalProtocolError for what cannot be an entry."""

    def __new__(cls) -> TarEncoder: ...
    def entry(
        self,
        path: bytes,
        kind: Literal["file", "directory", "symlink", "hardlink"],
        mode: int,
        mtime_ns: int,  # whole seconds need no pax header
        size: int = 0,
        target: bytes | None = None,
        /,
    ) -> None: ...
    def data(self, data: Buffer, /) -> None: ...  # of the last entry
    def finish(self) -> None: ...
    @property
    def missing(self) -> int: ...  # data bytes that the last entry still needs
    def take(self) -> bytes: ...  # what was made since
    def __len__(self) -> int: ...  # of what `take` would give

@final
class TreePacker:
    """Packs the contents of an open directory as a tar stream. After an error what was made is no archive."""

    def __new__(cls, directory: int, /) -> TreePacker: ...  # a descriptor, of which it makes its own
    # so many bytes or a small file more; None behind the end. Raises OSError. Releases the GIL
    def next_piece(self, size: int, /) -> bytes | None: ...
    def take_skipped(self) -> list[bytes]: ...  # paths of sockets, devices and pipes met since, which are left out
    def close(self) -> None: ...  # what it has open

@final
class TreeUnpacker:
    """Unpacks one archive below an open directory, confined to it. After an error nothing more may be written.

    The directory is new and was made with all permissions that the umask leaves. Releases the GIL.
    """

    def __new__(cls, root: int, bytes_max: int | None, /) -> TreeUnpacker: ...
    def write(self, data: Buffer, /) -> None: ...  # UnsafeArchive, LimitExceeded, OSError
    def write_batch(self, batch: Batch, digest: Blake3, /) -> None: ...  # its chunks; the digest goes over them, too
    def finish(self) -> None: ...  # the archive is whole, and no link in it leads out. UnsafeArchive

# ---------------------------------------------------------------- banana (Perspective Broker's bytes)

Sexp: TypeAlias = bytes | int | float | Sequence[Sexp]

@final
class BananaDecoder:
    """Bytes in, top-level expressions out: nested lists of bytes, int and float.

    A string or a list is at most 655,360 long; an expression at most 32 MiB and 1,048,576 elements, 100 lists deep.
    """

    def __new__(cls) -> BananaDecoder: ...
    def use_vocabulary(self) -> None: ...  # from the next expression on: dialect `pb` was chosen
    def receive_data(self, data: Buffer, /) -> None: ...
    def receive_from(self, fd: int, max_bytes: int, /) -> int | None: ...  # as `Session.receive_from`
    def next_expression(self) -> Sexp | None: ...  # RemoteProtocolError, for ever after
    def next_output(self) -> BananaOutput | None: ...  # None: what comes next is something else, or has not come
    def __len__(self) -> int: ...  # bytes that were not decoded yet

@final
class BananaOutput:
    """Calls of `update` that follow each other, on one object and with nothing but text."""

    @property
    def target(self) -> int: ...
    @property
    def calls(self) -> list[int]: ...
    @property
    def texts(self) -> list[tuple[str, str | None, memoryview]]: ...  # (channel, name, UTF-8); copies

def banana_encode(
    value: Sexp, vocabulary: bool = True, /
) -> bytes: ...  # tuples go as lists. LocalProtocolError for what is too large
def banana_answers(
    calls: Sequence[int], value: int, vocabulary: bool = True, /
) -> bytes: ...  # the same to all of them
def send_to(
    fd: int, data: Buffer, max_bytes: int, /
) -> int: ...  # of a socket that does not block; how much went. OSError
def keep_freed_memory() -> None: ...  # some MiB, in this process: large batches come one after another

# ---------------------------------------------------------------- store

@final
class LogWriter:
    """Appends one run's journal to segment files in a directory of its own (rust/store/FORMAT.md). Releases the GIL.

    Everything raises StoreError. A failed `append` (a full disk) leaves the log as it was, and may be repeated. `reader`
    and what says how far the log goes do not wait for an `append` in another thread.
    """

    @staticmethod
    def create(directory: str, segment_bytes: int = 268435456, /) -> LogWriter: ...  # exists, and holds no segment yet
    @staticmethod
    def recover(
        directory: str, segment_bytes: int = 268435456, /
    ) -> LogWriter: ...  # a killed writer's; cuts the torn tail off
    def append(self, batch: Batch, chain: bytes | None = None, /) -> None: ...  # at `end`; `chain` after it, if known
    def skip(self, batch: Batch, reason: str, chain: bytes | None = None, /) -> None: ...  # a gap instead of it
    def jump(
        self, offset: int, chain: bytes, reason: str, /
    ) -> None: ...  # a gap up to there, where the chain is `chain`
    def sync(self) -> None: ...  # everything appended before is safe; appends go on meanwhile
    def close(self) -> None: ...  # no append follows; the file is let go of, not synced
    @staticmethod
    def seal_next(
        directory: str, /
    ) -> bool: ...  # of a closed log: compresses one segment. False: none was left, all is synced
    def reader(self) -> LogReader: ...  # sees every append at once
    @property
    def end(self) -> int: ...  # where the next record begins
    @property
    def stored(self) -> int: ...  # the last one's end: less than `end` if what follows is left out
    @property
    def chain(self) -> bytes: ...
    @property
    def records(self) -> int: ...
    def totals(self) -> dict[str, tuple[int, int]]: ...  # bytes and lines by channel; keys as in Receipt.channels

@final
class LogReader:
    """Reads one run's journal, whatever its size, in constant memory. Releases the GIL. Everything raises StoreError.

    `channel` is `stdout`, `stderr`, `header` or `log:NAME`; `None` means stdout and stderr, counted together.
    """

    @staticmethod
    def open(directory: str, /) -> LogReader: ...  # up to the last good record that stands now
    @property
    def end(self) -> int: ...
    def totals(self) -> dict[str, tuple[int, int]]: ...
    def is_ended(self) -> bool: ...  # the last record is a receipt: nothing follows
    def lines(self, channel: str | None = None, /) -> int: ...  # begun so far
    def batch(
        self, offset: int, max_bytes: int, /
    ) -> Batch | None: ...  # at least one record, behind a gap if one is there; None: `offset` is the end
    def at_hand(
        self, offset: int, max_bytes: int, /
    ) -> Batch | None: ...  # the same, perhaps less, if another reader of the log has just read it; never waits
    def gaps(self) -> list[tuple[int, int, bytes, str]]: ...  # what is left out: from, to, the chain there, why
    def find_line(self, line: int, channel: str | None = None, /) -> tuple[int, int] | None: ...
    # ^ from 1: the record in which it begins, and which of that record's line starts it is (for Record.cut); None: not yet
    def find_time(self, time: float, /) -> int: ...  # the first record that is not older; `end` if all are

# ---------------------------------------------------------------- supervisor

def supervisor_helper_main(fd: int, /) -> None:
    """The helper process's life: starts a supervisor for each request on the socket `fd`, until its other end is closed.

    Only for a process that does nothing else. Takes the socket over.
    """
