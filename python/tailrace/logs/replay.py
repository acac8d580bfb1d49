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
    """What a log says, up to `ledger.offset`."""

    ledger: Ledger = attrs.field(factory=Ledger)
    values: dict[str, object] = attrs.field(factory=dict)  # of all updates; later ones win
    complete: bool = False
    failure: tuple[str, str] | None = None  # as the complete record has it
    receipt: Receipt | None = None
    problem: str | None = None  # why it went no further, if there is more

    @property
    def agrees(self) -> bool | None:
        """Whether the worker's receipt says what stands in the log. None: there is no receipt."""
        return None if self.receipt is None else self.ledger.agrees(self.receipt)

    def end(self, durable: Durability) -> RunEnd:
        """How the run ended, by its log alone."""
        assert self.receipt is not None
        table = receipt_table(self.receipt, agrees=self.ledger.agrees(self.receipt), durable=durable)
        return run_end(self.values, state="complete", failure=self.failure, receipt=table)

    def add(self, batch: Batch) -> None:
        """Take what follows.

        Raises:
            RemoteProtocolError: it cannot follow, or is no record.
        """
        self.ledger.add(batch)
        self.values.update(batch.updates())
        if batch.complete:
            self.complete, self.failure = True, batch.failure()
        self.receipt = batch.receipt() or self.receipt


def replay(reader: LogReader) -> Replay:
    """Go through a log as it stands now. Blocks, for a second or two a gigabyte; in a thread of trio's it can be
    cancelled. What cannot be read is a `problem`, not an error.
    """
    found = Replay()
    end = reader.end
    try:
        while found.ledger.offset < end and (batch := reader.batch(found.ledger.offset, _BATCH_BYTES)) is not None:
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
    counted = found.ledger.receipt()
    problems, damaged_from = [], None
    if found.problem is not None:
        problems.append(found.problem)
        damaged_from = found.ledger.offset
    if found.agrees is False:
        problems.append("the worker's receipt is not what is stored")
        damaged_from = 0 if damaged_from is None else damaged_from
    problems += _beside(info, found, damaged_from)
    receipt = found.receipt
    return Verified(
        run=info.id,
        state=info.state,
        bytes=found.ledger.offset,
        records=counted.records,
        chain=counted.chain.hex(),
        channels={channel: counts[:3] for channel, counts in counted.channels.items()},
        receipt=None if receipt is None else receipt_table(receipt, agrees=bool(found.agrees), durable=durable),
        damaged_from=damaged_from,
        problems=tuple(problems),
    )


def _beside(info: RunInfo, found: Replay, damaged_from: int | None) -> list[str]:
    """What is written down of the run, and does not fit its log."""
    if info.receipt is None or damaged_from is not None:
        return []
    if found.receipt is None:
        return ["the log does not reach its receipt"]
    said = {"chain": found.receipt.chain.hex(), "records": found.receipt.records}
    if any(info.receipt.get(key) != value for key, value in said.items()):
        return ["the receipt that is written down is not the one in the log"]
    return []
