"""`tailrace logs`: what a run has printed, from the store, as bytes or as a view of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .api import open_api
from .failure import OUTPUT_CLOSED, USAGE, Failure
from .settings import Told  # noqa: TC001  (cyclopts reads the annotations)
from .show import JsonShow, StreamShow

if TYPE_CHECKING:
    from .show import Show

_STREAMS = ("stdout", "stderr", "header")


async def logs(
    run: str,
    /,
    *,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    channel: str | None = None,
    from_line: int | None = None,
    tail: int | None = None,
    timestamps: bool = False,
    raw: bool = False,
    told: Told,
) -> int:
    """Print a run's log: its stdout on stdout, its stderr on stderr.

    As in: `tailrace logs last -f --tail 20`

    The bytes are exact, except on a terminal, where control sequences other than colours are made harmless.

    Parameters
    ----------
    run
        Its id, the beginning of it, or `last`.
    follow
        Go on until the run has ended. Ctrl-C leaves it running.
    channel
        Only this one: stdout, stderr, header, or the name of a log that the command has kept.
    from_line
        Begin with this line; the first one is 1.
    tail
        Only so many lines from the end.
    timestamps
        Put the time of its first byte before each line.
    raw
        The bytes of stdout and stderr, or of the one channel, in the order of their arrival, on stdout; nothing else.
    """
    if told.json + raw + timestamps > 1:
        raise Failure("--json, --raw and --timestamps exclude each other", "choose one", code=USAGE)
    params = {"follow": "1"} if follow else {}
    params |= _channel(channel)
    params |= _count("--from-line", "from_line", from_line) | _count("--tail", "tail", tail)
    show: Show
    if told.json:
        show = JsonShow()
    else:
        show = StreamShow(joined=raw, all_channels=channel is not None, safe=not raw, times=timestamps)
    try:
        async with open_api(told) as api:
            found = await api.run(run)
            await show.begin(found)
            async with api.log(found.id, params) as batches:
                await show.batches(batches)
            if told.json:
                await show.end(await api.run(found.id))
    except BrokenPipeError:
        return OUTPUT_CLOSED
    return 0


def _channel(name: str | None) -> dict[str, str]:
    if name is None:
        return {}
    if name in _STREAMS:
        return {"channel": name}
    return {"channel": "log", "name": name.removeprefix("log:")}


def _count(option: str, key: str, value: int | None) -> dict[str, str]:
    if value is None:
        return {}
    if value < (0 if key == "tail" else 1):
        raise Failure(f"{option} {value}: lines are counted from 1", f"as in: {option} 20", code=USAGE)
    return {key: str(value)}
