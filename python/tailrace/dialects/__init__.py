"""The wires: bytes ⇄ messages. This file is the only one that names them all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal, cast, final

import attrs

from tailrace.dialects.native.dialect import NativeDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace.dialects.dialect import Clock, Dialect, MakeDialect
    from tailrace.limits import Limits

__all__ = ["DIALECTS"]


@final
@attrs.frozen
class _Imported:
    """Makes dialects of a module that is imported for the first of them: who does not speak a wire does without."""

    module: str
    name: str

    def __call__(
        self,
        role: Literal["master", "worker"],
        /,
        *,
        id: str,  # noqa: A002 - the session's name for it
        nonce: bytes,
        limits: Limits,
        clock: Clock,
        host: str = "",
        name: str = "",
        secret: bytes = b"",
        software: str = "",
    ) -> Dialect:
        make = cast("MakeDialect", getattr(import_module(self.module), self.name))
        return make(
            role,
            id=id,
            nonce=nonce,
            limits=limits,
            clock=clock,
            host=host,
            name=name,
            secret=secret,
            software=software,
        )


DIALECTS: Final[Mapping[str, MakeDialect]] = {
    "tailrace": NativeDialect,
    "pb": _Imported("tailrace.dialects.buildbot.pb.dialect", "pb_dialect"),
    "msgpack": _Imported("tailrace.dialects.buildbot.msgpack.dialect", "make_dialect"),
}
"""An endpoint's scheme, without `+tls` or `+unix` → the dialect that is spoken there."""
