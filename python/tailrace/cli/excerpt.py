"""What of a log is to be seen: a place to begin, and a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailrace._core import Batch, Gap, Record


@final
@attrs.frozen(kw_only=True)
class Excerpt:
    """Everything from the record at `offset` on, of which the first is cut at its line start number `cut`."""

    offset: int = 0
    cut: int | None = None
    channel: str | None = None
    """`stdout`, `stderr`, `header` or `log:NAME`; None: all of them."""

    def records(self, batch: Batch) -> Iterator[Record]:
        """Those of a batch that are to be seen."""
        for record in batch.records():
            if self._shows(record):
                seen = record.cut(self.cut) if self.cut is not None and record.offset == self.offset else record
                if len(seen):  # a record that was cut at its end is none
                    yield seen

    def gaps(self, batch: Batch) -> Iterator[Gap]:
        """Those of a batch that are to be said."""
        return (gap for gap in batch.gaps() if self._shows(gap))

    def _shows(self, piece: Record | Gap) -> bool:
        return self.channel is None or self.channel == (f"log:{piece.name}" if piece.name else piece.channel)
