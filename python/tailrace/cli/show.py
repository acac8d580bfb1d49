"""Ways to show a run's records: as the streams that they were, in one stream, with times, or as JSON lines."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, final

from .excerpt import Excerpt
from .failure import say
from .output import Output
from .terminal import Harmless, colours

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tailrace._core import Batch, Gap, Record

    from .api import Json, Row, RunInfo

WHOLE = Excerpt()


class Show(Protocol):
    tells_the_end: bool
    """Whether `end` says how the run ended, so that nobody else has to."""

    async def begin(self, run: RunInfo) -> None: ...
    async def batches(self, batches: AsyncIterator[Batch], excerpt: Excerpt = WHOLE) -> None:
        """Shows what `excerpt` has of them. When cancelled, some may have been shown in part."""
        ...

    async def away(self) -> None:
        """The master is away, and waited for."""
        ...

    async def back(self) -> None:
        """It is back."""
        ...

    async def end(self, run: RunInfo) -> None: ...


@final
class StreamShow:
    """The bytes themselves: stdout to our stdout, stderr to our stderr, or all of them `joined` on stdout."""

    tells_the_end = False

    def __init__(
        self, *, joined: bool = False, all_channels: bool = False, safe: bool = False, times: bool = False
    ) -> None:
        """
        Args:
            joined: everything goes to stdout, in the order of the records.
            all_channels: headers and named logs are shown too, on stdout.
            safe: what would do something to a terminal, if it is one, is made harmless.
            times: the time of its first byte stands before each line.
        """
        out = _Lane(Output(1), safe=safe, times=times)
        err = out if joined else _Lane(Output(2), safe=safe, times=times)
        self._lanes: dict[str, _Lane] = {"stdout": out, "stderr": err}
        if all_channels:
            self._lanes |= {"header": out, "log": out}

    async def begin(self, run: RunInfo) -> None:
        pass

    async def batches(self, batches: AsyncIterator[Batch], excerpt: Excerpt = WHOLE) -> None:
        try:
            async for batch in batches:
                for record in excerpt.records(batch):
                    if (lane := self._lanes.get(record.channel)) is not None:
                        await lane.write(record)
                for gap in excerpt.gaps(batch):
                    say(_described(gap))
            for lane in self._lanes.values():
                await lane.finish()
        finally:
            for lane in self._lanes.values():
                lane.restore()

    async def away(self) -> None:
        say("master is away, waiting…")

    async def back(self) -> None:
        pass

    async def end(self, run: RunInfo) -> None:
        pass


@final
class JsonShow:
    """One JSON object a line: the run, its records and gaps with their bytes as `data_b64`, the run at its end.

    Between them, when the master goes away and when it is back.
    """

    tells_the_end = True

    def __init__(self) -> None:
        self._output = Output(1)

    async def begin(self, run: RunInfo) -> None:
        await self._write({"type": "run", **run.row})

    async def batches(self, batches: AsyncIterator[Batch], excerpt: Excerpt = WHOLE) -> None:
        async for batch in batches:
            for record in excerpt.records(batch):
                await self._write(_record_row(record))
            for gap in excerpt.gaps(batch):
                await self._write(_gap_row(gap))

    async def away(self) -> None:
        await self._write({"type": "master", "state": "away"})

    async def back(self) -> None:
        await self._write({"type": "master", "state": "back"})

    async def end(self, run: RunInfo) -> None:
        await self._write({"type": "end", **run.row})

    async def _write(self, row: Row) -> None:
        await self._output.write(json.dumps(row).encode() + b"\n")


@final
class _Lane:
    """One of our streams with what stands between the log and it."""

    def __init__(self, output: Output, *, safe: bool, times: bool) -> None:
        self._output = output
        self._harmless = Harmless() if safe and output.is_terminal else None
        self._stamps = _Stamps(dim=output.is_terminal and colours()) if times else None

    async def write(self, record: Record) -> None:
        if self._harmless is None and self._stamps is None:
            await self._output.write(record)
            return
        data = record.data
        if self._harmless is not None and self._stamps is None:
            data = self._harmless.receive_data(data)
        elif self._stamps is not None:
            data = self._stamps.stamped(record, self._harmless)
        await self._output.write(data)

    async def finish(self) -> None:
        if self._harmless is not None:
            await self._output.write(self._harmless.receive_eof())

    def restore(self) -> None:
        """However it ended: the log's colour does not stay behind on the terminal."""
        if self._harmless is not None:
            self._output.write_nowait(self._harmless.reset())


@final
class _Stamps:
    """Puts the time before each line. The only view that looks at lines one by one."""

    def __init__(self, *, dim: bool) -> None:
        self._form = "\x1b[2m%s\x1b[22m " if dim else "%s "

    def stamped(self, record: Record, harmless: Harmless | None) -> bytes:
        times = iter(record.times)
        pieces = record.data.split(b"\n")
        out = []
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            if last and not piece:
                break
            if number > 0 or not record.continues:
                out.append((self._form % clock(next(times, record.time))).encode())
            piece = piece if last else piece + b"\n"
            out.append(harmless.receive_data(piece) if harmless else piece)
        return b"".join(out)


def clock(seconds: float) -> str:
    """Local time, to the millisecond."""
    return datetime.fromtimestamp(seconds).isoformat(" ", "milliseconds")


def print_json(row: Mapping[str, Json]) -> None:
    print(json.dumps(dict(row)), flush=True)


def _record_row(record: Record) -> Row:
    return {
        "type": "record",
        "channel": record.channel,
        "name": record.name,
        "time": record.time,
        "lines": record.lines,
        "partial": record.partial,
        "data_b64": base64.b64encode(record.data).decode(),
    }


def _gap_row(gap: Gap) -> Row:
    where: Row = {"type": "gap", "channel": gap.channel, "name": gap.name}
    return {**where, "bytes": gap.bytes, "lines": gap.lines, "reason": gap.reason}


def _described(gap: Gap) -> str:
    channel = f"{gap.channel} {gap.name}" if gap.name else gap.channel
    return f"{gap.bytes} bytes of {channel} are missing here: {gap.reason}"
