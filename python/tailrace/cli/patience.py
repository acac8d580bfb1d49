"""A master that may be away for a while: who attends a run waits for it, and goes on where it was."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, final

import trio

from .api import MasterAbsent, MasterAway
from .failure import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from tailrace._core import Batch

    from .api import Api, RunInfo

T = TypeVar("T")

_FIRST_S = 0.1
_LAST_S = 1.0
"""A master is back within a second or two, or somebody has to start it: then nobody counts seconds."""

_BREAKS_MAX = 3
"""So many answers that break off without a byte are no master that was killed: this log cannot be read."""


@final
class Patient:
    """An `Api` that waits for its master. What the master refuses is raised as ever.

    `on_away` is called at the begin of each absence, `on_back` at its end. Nothing waits if not `waits`: then the
    absence is a `Failure`. Everything may be cancelled at any time.
    """

    def __init__(
        self,
        api: Api,
        on_away: Callable[[], Awaitable[None]],
        on_back: Callable[[], Awaitable[None]],
        *,
        waits: bool = True,
    ) -> None:
        self._api = api
        self._on_away = on_away
        self._on_back = on_back
        self._waits = waits
        self._away = False

    async def run(self, name: str) -> RunInfo:
        """The run as it is."""
        return await self._persist(lambda: self._api.run(name))

    async def place(self, name: str, params: Mapping[str, str]) -> tuple[int, int | None]:
        """See `Api.place`."""
        return await self._persist(lambda: self._api.place(name, params))

    async def wait(self, name: str) -> RunInfo:
        """The run, when it has ended, under whichever process of the master."""
        pause_s = _FIRST_S
        while not (run := await self._persist(lambda: self._api.wait(name))).ended:
            # Its worker may not be back yet. Or that master was about to end.
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_S)
        return run

    async def stop(self, name: str, why: str) -> None:
        """Interrupt the run, as soon as there is somebody to do it."""
        await self._persist(lambda: self._api.stop(name, why), quietly=True)

    async def log(self, name: str, offset: int = 0, *, follow: bool) -> AsyncGenerator[Batch]:
        """The run's records from `offset` on, each once; with `follow` until it has ended."""
        pause_s, breaks = _FIRST_S, 0
        while True:
            try:
                async with self._api.log(name, offset, follow=follow) as answer, aclosing(answer) as batches:
                    async for batch in batches:
                        await self._note_back()
                        yield batch
                        offset, pause_s, breaks = batch.end, _FIRST_S, 0
            except MasterAway as error:
                breaks += not isinstance(error, MasterAbsent)
                if breaks > _BREAKS_MAX:
                    raise Failure("the log breaks off again and again", "see what the master says of it") from error
                await self._note_away(error)
            else:
                if not follow or (await self.run(name)).ended:
                    return
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_S)

    async def _persist(self, ask: Callable[[], Awaitable[T]], *, quietly: bool = False) -> T:
        """`ask`, until there is an answer."""
        pause_s = _FIRST_S
        while True:
            try:
                answer = await ask()
            except MasterAway as error:
                if not self._waits:
                    raise
                if not quietly:
                    await self._note_away(error)
            else:
                if not quietly:
                    await self._note_back()
                return answer
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_S)

    async def _note_away(self, error: MasterAway) -> None:
        if not self._waits:
            raise error
        if not self._away:
            self._away = True
            await self._on_away()

    async def _note_back(self) -> None:
        if self._away:
            self._away = False
            await self._on_back()
