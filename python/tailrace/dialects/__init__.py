"""The wires: bytes ⇄ messages. This file is the only one that names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tailrace.dialects.buildbot.pb.dialect import pb_dialect
from tailrace.dialects.native.dialect import NativeDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace.dialects.dialect import MakeDialect

__all__ = ["DIALECTS"]

DIALECTS: Final[Mapping[str, MakeDialect]] = {"tailrace": NativeDialect, "pb": pb_dialect}
"""An endpoint's scheme, without `+tls` or `+unix` → the dialect that is spoken there."""
