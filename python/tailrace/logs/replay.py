"""A stored log, gone through once more: what its records say, counted anew."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - attrs looks at it
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from tailrace._core import Ledger, Receipt
from tailrace.errors import RemoteProtocolError, StoreError
from tailrace.logs.info import RunEnd, RunInfo, RunState, receipt_table, run_end

if TYPE_CHECKING:
    from tailrace._core import Batch, LogReader
    from tailrace.logs.commit import Durability

_BATCH_BYTES: Final = 1 << 20
"""In hand at once."""


@final
@attrs.define
class Replay:
    """What a log says, up to `offset`."""

    gaps: dict[int, tuple[int, bytes, str]] = attrs.field(factory=dict)  # by their ends: from, chain behind, why
    ledger: Ledger = attrs.field(factory=Ledger)  # behind the last gap
    before: list[Receipt] = attrs.field(factory=list)  # what was counted before each gap
    values: dict[str, object] = attrs.field(factory=dict)  # of all updates; later ones win
    complete: bool = False
    failure: tuple[str, str] | None = None  # as the complete record has it
    receipt: Receipt | None = None
    problem: str | None = None  # why it went no further, if there is more

    @property
    def offset(self) -> int:
        """How far it has come."""
        return self.ledger.offset

    @property
    def agrees(self) -> bool | None:
        """Whether the worker's receipt says what stands in the log. None: there is no receipt."""
        return None if self.receipt is None else not self.gaps and self.ledger.agrees(self.receipt)

    @property
    def records(self) -> int:
        """How many there are, but a receipt."""
        return sum(part.records for part in self._parts())

    def channels(self) -> dict[str, tuple[int, int, int]]:
        """Of each channel bytes, lines begun, and bytes in gaps that the worker tells of."""
        channels: dict[str, tuple[int, int, int]] = {}
        for part in self._parts():
            for channel, (size, lines, missing, _) in part.channels.items():
                before = channels.get(channel, (0, 0, 0))
                channels[channel] = before[0] + size, before[1] + lines, before[2] + missing
        return channels

    def end(self, durable: Durability) -> RunEnd:
        """How the run ended, by its log alone."""
        assert self.receipt is not None
        table = receipt_table(self.receipt, agrees=bool(self.agrees), durable=durable)
        return run_end(self.values, state="complete", failure=self.failure, receipt=table)

    def add(self, batch: Batch) -> None:
        """Take what follows.

        Raises:
            RemoteProtocolError: it cannot follow, or is no record.
        """
        if batch.start != self.offset:
            self.before.append(self.ledger.receipt())
            self.ledger = Ledger.resumed(batch.start, self.gaps[batch.start][1])
        self.ledger.add(batch)
        self.values.update(batch.updates())
        if batch.complete:
            self.complete, self.failure = True, batch.failure()
        self.receipt = batch.receipt() or self.receipt

    def _parts(self) -> list[Receipt]:
        return [*self.before, self.ledger.receipt()]


def replay(reader: LogReader) -> Replay:
    """Go through a log as it stands now. Blocks, for a second or two a gigabyte; in a thread of trio's it can be
    cancelled. What cannot be read is a `problem`, not an error.
    """
    found = Replay()
    end = reader.end
    try:
        found.gaps = {to: (begin, chain, why) for begin, to, chain, why in reader.gaps()}
        while found.offset < end and (batch := reader.batch(found.offset, _BATCH_BYTES)) is not None:
            found.add(batch)
            trio.from_thread.check_cancelled()
    except (StoreError, RemoteProtocolError) as error:
        found.problem = str(error)
    return found


@final
@attrs.frozen(kw_only=True)
class Verified:
    """A stored log, counted anew, beside its receipt. Offsets are of the journal, in bytes."""

    run: str
    state: RunState
    bytes: int  # of the journal, as far as it can be read
    records: int  # before the receipt
    chain: str  # over them, hex
    channels: Mapping[str, tuple[int, int, int]]  # bytes, lines begun, bytes in gaps
    receipt: Mapping[str, object] | None  # as it stands in the log: what the worker sent
    damaged_from: int | None  # what stands from there on is not known to be what the worker sent
    problems: tuple[str, ...]  # one line each

    @property
    def ok(self) -> bool:
        """What is stored is what was sent; of a run without a receipt, which still runs or was lost, so far."""
        return not self.problems


def verify(reader: LogReader, info: RunInfo, durable: Durability) -> Verified:
    """Count a log anew, and compare it with its receipt and with what is written down of the run. Blocks."""
    found = replay(reader)
    problems = [_missing(begin, to, why) for to, (begin, _, why) in found.gaps.items()]
    bad = [begin for begin, *_ in found.gaps.values()]
    if found.problem is not None:
        problems.append(found.problem)
        bad.append(found.offset)
    if found.agrees is False:
        problems.append("the worker's receipt is not what is stored")
        # Where, nobody can say.
        bad = bad or [0]
    problems += _beside(info, found) if not problems else []
    return Verified(
        run=info.id,
        state=info.state,
        bytes=found.offset,
        records=found.records,
        chain=found.ledger.receipt().chain.hex(),
        channels=found.channels(),
        receipt=_table(found, durable),
        damaged_from=min(bad, default=None),
        problems=tuple(problems),
    )


def _missing(begin: int, to: int, why: str) -> str:
    what = f"bytes {begin} to {to} of the journal are missing" if begin < to else f"damaged up to byte {begin}"
    return f"{what}: {why}"


def _table(found: Replay, durable: Durability) -> dict[str, object] | None:
    return None if found.receipt is None else receipt_table(found.receipt, agrees=bool(found.agrees), durable=durable)


def _beside(info: RunInfo, found: Replay) -> list[str]:
    """What is written down of the run, and does not fit its log."""
    if info.receipt is None:
        return []
    if found.receipt is None:
        return ["the log does not reach its receipt"]
    said = {"chain": found.receipt.chain.hex(), "records": found.receipt.records}
    if any(info.receipt.get(key) != value for key, value in said.items()):
        return ["the receipt that is written down is not the one in the log"]
    return []
