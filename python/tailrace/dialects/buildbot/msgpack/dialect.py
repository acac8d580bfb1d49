"""`msgpack_experimental_v7`, either side. See `Dialect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tailrace.dialects.buildbot.msgpack.master import MsgpackMaster
from tailrace.dialects.buildbot.msgpack.worker import MsgpackWorker

if TYPE_CHECKING:
    from tailrace.dialects.dialect import Clock, Dialect
    from tailrace.limits import Limits

__all__ = ["make_dialect"]


def make_dialect(
    role: Literal["master", "worker"],
    /,
    *,
    id: str,  # noqa: A002 - as for all dialects
    nonce: bytes,
    limits: Limits,
    clock: Clock,
    host: str = "",
    name: str = "",
    secret: bytes = b"",
    software: str = "",
) -> Dialect:
    """One side of one connection. The nonce is not needed: the password crosses the wire as it is."""
    del nonce
    if role == "master":
        return MsgpackMaster(id=id, limits=limits, clock=clock, software=software)
    return MsgpackWorker(id=id, limits=limits, host=host, name=name, secret=secret, software=software)
