"""Every limit that is configured: its unit, its default, and the reason for the number.

The units are in the names: `_s` seconds, `_bytes` bytes. The same names stand in `tailrace.toml`, under `[limits]`.
"""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt

KIB = 1024
MIB = 1024 * KIB


@attrs.frozen(kw_only=True)
class Limits:
    """How long one waits and how much one holds."""

    resume_grace_s: float = attrs.field(default=300, validator=ge(0))
    """How long a broken connection may come back before its commands are lost. A switch that reboots takes two minutes;
    a master that waits longer than five holds builds up that could run elsewhere."""

    ping_interval_s: float = attrs.field(default=15, validator=gt(0))
    """After so much silence the peer is asked for a sign of life. Below the 30 s after which the
    strictest NATs forget a flow."""

    ping_timeout_s: float = attrs.field(default=45, validator=gt(0))
    """After so much silence the peer is dead: three intervals, so that one lost packet with its
    retransmissions is no death."""

    handshake_timeout_s: float = attrs.field(default=10, validator=gt(0))
    """From the first byte to the end of the login. Four flights, even by satellite under 3 s; a stranger
    holds a socket no longer."""

    duplicate_timeout_s: float = attrs.field(default=5, validator=gt(0))
    """How long an attached worker has to answer before another one of its name may take its place."""

    close_timeout_s: float = attrs.field(default=5, validator=gt(0))
    """How long a connection that we close may take to send what is queued, and its commands to be told."""

    handshakes_max: int = attrs.field(default=256, validator=gt(0))
    """Connections that are not logged in yet, per listener: what a large farm makes when its master comes
    back, at 4 KiB of input buffer each."""

    frame_bytes_max: int = attrs.field(default=64 * KIB, validator=gt(0))
    """The wire's own number (PROTOCOL.md section 2): 64 KiB delay an urgent frame by 0.5 ms on a gigabit line."""

    update_bytes_max: int = attrs.field(default=8 * MIB, validator=gt(0))
    """The most that one `remote_update` carries. Beyond some MiB a call saves nothing more, and memory is the cost."""

    stream_window_bytes: int = attrs.field(default=4 * MIB, validator=gt(0))
    """What may be on its way for one stream: 4 MiB fill 300 MB/s at 13 ms of round trip."""

    connection_window_bytes: int = attrs.field(default=32 * MIB, validator=gt(0))
    """What may be on its way for one connection: eight streams at full window. It bounds the memory that
    a worker can take."""

    compress_below_bytes_s: int = attrs.field(default=128_000_000, validator=ge(0))
    """Logs and files go compressed over a line that is full with fewer bytes a second, if both ends have time for it
    (zstd, the native wire only): over more than a gigabit the compressor would be the slower of the two. 0: never."""

    streams_max: int = attrs.field(default=4096, validator=gt(0))
    """Open streams of one connection: two for each command that moves a file, and room."""

    commands_max: int = attrs.field(default=1000, validator=gt(0))
    """Commands at once on one worker. Each has a supervisor, a ring of 8 MiB and some descriptors:
    a thousand is a large machine."""

    spool_bytes_max: int = attrs.field(default=1024 * MIB, validator=gt(0))
    """How much of one command's journal a worker keeps on disk while its master is away: an hour of a chatty build."""

    orphan_timeout_s: float = attrs.field(default=86400, validator=gt(0))
    """A worker without its master interrupts that master's commands after a day: over a night, not over a holiday."""

    def __attrs_post_init__(self) -> None:
        if self.ping_timeout_s <= self.ping_interval_s:
            raise ValueError(
                f"ping_timeout_s ({self.ping_timeout_s!r}) must be more than ping_interval_s ({self.ping_interval_s!r})"
            )
        if self.frame_bytes_max > 64 * KIB:
            raise ValueError(f"frame_bytes_max ({self.frame_bytes_max!r}) cannot be more than the wire's 65536")
