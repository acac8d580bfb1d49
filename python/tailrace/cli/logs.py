"""`tailrace logs`: what a run has printed, from the store, as bytes or as a view of them."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .api import open_api
from .excerpt import Excerpt
from .failure import OUTPUT_CLOSED, USAGE, Failure
from .patience import Patient
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
    no_wait: bool = False,
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
    no_wait
        With -f: when the master goes away, give up at once, with exit code 125. Else it is waited for, as long as it
        takes, and the log goes on where it was.
    """
    if told.json + raw + timestamps > 1:
        raise Failure("--json, --raw and --timestamps exclude each other", "choose one", code=USAGE)
    params = {"follow": "1"} if follow else {}
    params |= _channel(channel)
    start = _count("--from-line", "from_line", from_line) | _count("--tail", "tail", tail)
    show: Show
    if told.json:
        show = JsonShow()
    else:
        show = StreamShow(joined=raw, all_channels=channel is not None, safe=not raw, times=timestamps)
    try:
        async with open_api(told) as api:
            found = await api.run(run)
            await show.begin(found)
            patient = Patient(api, show.away, show.back, waits=follow and not no_wait)
            excerpt = await _excerpt(patient, found.id, params, start)
            async with aclosing(patient.log(found.id, excerpt.offset, follow=follow)) as batches:
                await show.batches(batches, excerpt)
            if told.json:
                await show.end(await patient.run(found.id))
    except BrokenPipeError:
        return OUTPUT_CLOSED
    return 0


async def _excerpt(api: Patient, run: str, channel: dict[str, str], start: dict[str, str]) -> Excerpt:
    named = f"log:{channel['name']}" if "name" in channel else channel.get("channel")
    if not start:
        return Excerpt(channel=named)
    offset, cut = await api.place(run, channel | start)
    return Excerpt(offset=offset, cut=cut, channel=named)


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
