"""Where the demo is seen: lines that scroll, and on a terminal one moving line for each worker below them."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tailrace.cli.ending import seconds
from tailrace.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .lines import Line

_FRAME_S = 0.08
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_LANES = ("cyan", "magenta")
_MARKS = {"ok": ("✓", "green"), "interrupted": ("■", "yellow")}
_LONG_LINE_BYTES = 1000
_PLAIN_WIDTH = 160


@final
class Screen:
    """Everything that the demo says. Colours only where they are wanted, moving lines only on a terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live: Live | None = None
        self._busy: dict[str, _Busy] = {}
        self._lanes: dict[str, str] = {}
        if not self._console.is_terminal:
            self._console.width = _PLAIN_WIDTH
        self._width = self._console.width

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """While inside, the workers' moving lines are kept up to date."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._animate)
                try:
                    yield
                finally:
                    self._busy.clear()
                    self._live.update(Text(""), refresh=True)
                    nursery.cancel_scope.cancel()
        self._live = None

    def title(self, text: str) -> None:
        self._print(Text(text, style="bold"))

    def note(self, text: str = "", style: str = "") -> None:
        self._print(Text(text, style=style))

    def fact(self, name: str, text: str) -> None:
        self._print(Text.assemble((f"{name:<8}", self._lane(name)), " ", printable(text)))

    def legend(self) -> None:
        """What the marks mean."""
        self._print(Text.assemble(("│", "dim"), " stdout   ", ("┃", "yellow"), " stderr"))

    def begin(self, worker: str, step: str) -> None:
        """`step` is now what `worker` does."""
        self._busy[worker] = _Busy(step)

    def line(self, worker: str, channel: str, line: Line) -> None:
        """A line of a step's output; a very long one is shown by its beginning."""
        mark = ("│", "dim") if channel == "stdout" else ("┃", "yellow")
        text = printable(line.text.replace("\t", "    "))
        room = max(20, self._width - 18)
        if line.bytes > _LONG_LINE_BYTES:
            tail = f" … one line of {line.bytes:,} bytes"
            text = text[: room - len(tail)] + tail
        elif len(text) > room:
            text = text[: room - 9] + "…" + text[-8:]  # a test's name is long, and its result stands at the end
        step = self._busy[worker].step if worker in self._busy else ""
        self._print(Text.assemble((f"{worker} {step:<8} ", self._lane(worker)), mark, " ", text))

    def partial(self, worker: str, text: str) -> None:
        """What stands in a line that has not ended: a progress bar, perhaps."""
        if worker in self._busy:
            self._busy[worker].partial = printable(text)

    def end(self, worker: str, outcome: str, words: str) -> None:
        """The step is over."""
        busy = self._busy.pop(worker)
        mark = _MARKS.get(outcome, ("✗", "red"))
        self._print(Text.assemble((f"{worker} {busy.step:<8} ", self._lane(worker)), mark, " ", (words, "bold")))

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> None:
        """Cells are (text, style)."""
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
        for head in heads:
            table.add_column(head, no_wrap=True)
        for row in rows:
            table.add_row(*(Text(printable(text), style=style) for text, style in row))
        self._console.print(table)

    def _print(self, text: Text) -> None:
        self._console.print(text, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)

    def _lane(self, worker: str) -> str:
        if worker not in self._lanes and worker != "master":
            self._lanes[worker] = _LANES[len(self._lanes) % len(_LANES)]
        return self._lanes.get(worker, "dim")

    async def _animate(self) -> None:
        assert self._live is not None
        while True:
            self._live.update(Group(*(self._status(*item) for item in self._busy.items())), refresh=True)
            await trio.sleep(_FRAME_S)

    def _status(self, worker: str, busy: _Busy) -> Text:
        age = time.monotonic() - busy.since
        spinner = _SPINNER[int(age / _FRAME_S) % len(_SPINNER)]
        head = f"{spinner} {worker} {busy.step:<8} {seconds(age):>6}  "
        text = Text.assemble((head, self._lane(worker)), (busy.partial[: max(0, self._width - len(head) - 1)], ""))
        text.no_wrap = True
        return text


@final
class _Busy:
    """What a worker is doing."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.since = time.monotonic()
        self.partial = ""
