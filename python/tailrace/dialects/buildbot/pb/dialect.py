"""Perspective Broker as a dialect: `DIALECTS` knows it by this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tailrace.dialects.buildbot.pb.master import PbMaster
from tailrace.dialects.buildbot.pb.worker import PbWorker

if TYPE_CHECKING:
    from tailrace.dialects.dialect import Clock, Dialect
    from tailrace.limits import Limits


def pb_dialect(
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
    """One side of a connection. This wire has no ids: `id` is not said."""
    del id
    if role == "master":
        return PbMaster(nonce=nonce, limits=limits, clock=clock)
    return PbWorker(limits=limits, host=host, name=name, secret=secret, software=software)
