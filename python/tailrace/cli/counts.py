"""A channel's counts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import Json

_CHANNEL_COUNTS = ("bytes", "lines", "bytes in gaps", "bytes masked")


def counted(counts: Json) -> str:
    """As a receipt has them; gaps and masked bytes only if there are any."""
    if not isinstance(counts, list):
        return "" if counts is None else str(counts)
    said = [
        f"{count} {what}"
        for what, count in zip(_CHANNEL_COUNTS, counts, strict=False)
        if count or what in ("bytes", "lines")
    ]
    return ", ".join(said)
