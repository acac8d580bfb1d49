"""One line of the table, and how its figures are taken: in turn, as machines change their speed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs

Figure = TypeVar("Figure")

TARGET = Path(__file__).parent.parent / "target"
"""Where what is built lies: on a real disk, as a rule, which `/tmp` often is not."""


LESS_IS_BETTER = {"s/GB", "s", "ms", "µs", "KiB", "MiB", "%", "million"}
"""Units of cost; the others are of speed."""


@attrs.frozen(kw_only=True)
class Row:
    """A figure of ours, beside a peer's or the limit's from the same run."""

    job: str
    unit: str
    ours: float
    peer: str = ""
    """Whose the other figure is."""
    theirs: float | None = None
    at_least: float | None = None
    """The target: of the ratio, or of our figure where there is no other."""
    at_most: float | None = None
    """The same, where less is better."""
    more: dict[str, float] = attrs.field(factory=dict)
    """What else was measured, for the JSON."""

    @property
    def ratio(self) -> float | None:
        return None if not self.theirs else self.ours / self.theirs

    @property
    def is_met(self) -> bool | None:
        """Whether the target was met; `None`: there is none."""
        figure = self.ours if self.theirs is None else self.ratio
        if figure is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or figure >= self.at_least) and (self.at_most is None or figure <= self.at_most)

    @property
    def less_is_better(self) -> bool:
        return self.at_most is not None or (self.at_least is None and self.unit in LESS_IS_BETTER)

    @property
    def target(self) -> str:
        """As people read it; empty: there is none."""
        if self.at_most is not None:
            return f"≤ {self.at_most:.3g}"
        return "" if self.at_least is None else f"≥ {self.at_least:.3g}"

    def to_json(self) -> dict[str, object]:
        return {**attrs.asdict(self), "ratio": self.ratio, "met": self.is_met}


HEADER = f"{'job':44} {'ours':>16} {'theirs':>10} {'':24} {'ratio':>6} {'target':>8}"


def line(row: Row) -> str:
    """The row as the terminal shows it."""
    theirs = "" if row.theirs is None else number(row.theirs)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    ours = f"{number(row.ours)} {row.unit}"
    return f"{row.job:44} {ours:>16} {theirs:>10} {row.peer:24} {ratio:>6} {row.target:>8} {verdict(row)}".rstrip()


def verdict(row: Row) -> str:
    """Whether the target was met, in a word."""
    return {True: "met", False: "MISSED", None: ""}[row.is_met]


def number(figure: float) -> str:
    """Three digits that say something."""
    return f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


@attrs.frozen(kw_only=True)
class Options:
    """What `./dev bench` was asked for."""

    rounds: int = 5
    scale: float = 1.0
    """How much of the full work: `--quick` makes it 0.1."""
    disk: Path = attrs.field(factory=lambda: TARGET)
    """A directory on the disk that is measured, where one does it."""


def in_turn(rounds: int, **jobs: Callable[[], Figure]) -> dict[str, list[Figure]]:
    """Every job once in each round, one after another."""
    found: dict[str, list[Figure]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
    return found


def median(figures: list[Figure], of: Callable[[Figure], float] = float) -> float:  # type: ignore[assignment]
    """The median of one number of each."""
    return statistics.median(of(figure) for figure in figures)


def medians(found: dict[str, list[Figure]], of: Callable[[Figure], float]) -> dict[str, float]:
    """The same, of each job of `in_turn`."""
    return {job: median(figures, of) for job, figures in found.items()}
