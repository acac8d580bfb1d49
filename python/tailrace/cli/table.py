"""Columns: with a little emphasis on a terminal, plain and whole for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .terminal import colours, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLES = {
    "ok": "green",
    "attached": "green",
    "running": "cyan",
    "absent": "yellow",
    "suspended": "yellow",
    "interrupted": "yellow",
    "lost": "red",
    "failed": "red",
}
"""How a word that stands alone in a cell looks."""


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On standard output. Text from elsewhere is made harmless; the last column is cut to the terminal's width."""
    shown = [[printable(cell) for cell in row] for row in rows]
    if colours():
        _print_rich(heads, shown)
    else:
        _print_plain(heads, shown)


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """A value a line, with its name before it."""
    width = max(len(name) for name, _ in pairs)
    dim, end = ("\x1b[2m", "\x1b[0m") if colours() else ("", "")
    print("\n".join(f"{dim}{name:<{width}}{end}  {printable(value)}" for name, value in pairs), flush=True)


def style(word: str) -> str:
    """The style of a state or an outcome."""
    if word.startswith(("exit ", "SIG", "timeout", "max ")):
        return "red"
    return STYLES.get(word, "")


def _print_plain(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(heads), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    print("\n".join(text), flush=True)


def _print_rich(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column, head in enumerate(heads[:-1]):
        table.add_column(head, no_wrap=True, min_width=max(len(head), *(len(row[column]) for row in rows)))
    table.add_column(heads[-1], no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell, style=style(cell)) for cell in row))
    Console().print(table)
