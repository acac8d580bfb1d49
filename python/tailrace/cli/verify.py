"""`tailrace verify`: what is stored of a run is counted anew, and compared with what its worker sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .api import Row, open_api
from .counts import counted
from .failure import NOT_VERIFIED, say
from .settings import Told  # noqa: TC001  (cyclopts reads the annotations)
from .show import print_json
from .table import print_pairs

if TYPE_CHECKING:
    from .api import Json


async def verify(run: str, /, *, told: Told) -> int:
    """Check a run against its receipt: all that is stored of it is read, counted and hashed again.

    As in: `tailrace verify last`

    Prints a line for each channel, then `ok`; or, on standard error, what differs. Exit codes: 0 it is all there, byte
    for byte; 1 it is not, or there is no receipt, as the run has not ended or was lost.

    Parameters
    ----------
    run
        Its id, the beginning of it, or `last`.
    """
    async with open_api(told) as api:
        found = await api.verify((await api.run(run)).id)
    if told.json:
        print_json(found)
    else:
        if channels := _channels(found.get("channels")):
            print_pairs(channels)
        for problem in _problems(found):
            say(problem)
        if found.get("ok") is True:
            print("ok", flush=True)
    return 0 if found.get("ok") is True else NOT_VERIFIED


def _channels(channels: Json) -> list[tuple[str, str]]:
    return [(name, counted(counts)) for name, counts in channels.items()] if isinstance(channels, dict) else []


def _problems(found: Row) -> list[str]:
    said = found.get("problems")
    problems = [str(problem) for problem in said] if isinstance(said, list) else []
    if (offset := found.get("damaged_from")) is not None:
        problems.append(f"from byte {offset} of the journal on it may not be what the worker sent")
    return problems
