"""A channel's bytes as the text that Buildbot's wires carry: decoded, and, where the master wants it, in whole lines.

Nothing is lost: a line that is longer than a master's `max_line_length` stays one line.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs

if TYPE_CHECKING:
    import re

LINE_CHARS_MAX = 8 << 20
"""How much of a line without an end is held back. Beyond that it is ended by force: this side's memory is bounded."""

# How far back something may begin that a separator is made of: the longest cursor sequence that anyone sends.
_TAIL_CHARS = 16
# What Buildbot's separators begin with.
_MAY_SEPARATE: Final = ("\r", "\x1b", "\x08")

Lines: TypeAlias = tuple[str, Sequence[float]]
"""Text, and when each of its lines began."""


@final
@attrs.frozen(kw_only=True)
class LineStyle:
    """How the master wants its text."""

    whole: bool = True
    """Every text ends with a newline. If not, it goes out as it comes."""

    separator: re.Pattern[str] | None = None
    """What stands for the end of a line, beside `\\n`."""

    timed: bool = True
    """The wire has times. If not, none are made: they are one number for each line."""

    usual: bool = True
    """The separator is Buildbot's own: it needs one of three characters."""


@final
class LineMaker:
    """One channel of one command."""

    def __init__(self, style: LineStyle, encoding: str = "utf-8") -> None:
        self._style = style
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        # The line that is not finished: pieces, how long they are, what may begin a separator, when it began.
        self._held: list[str] = []
        self._held_chars = 0
        self._tail = ""
        self._began: float | None = None

    def add(self, data: bytes, times: Sequence[float], at: float, *, continues: bool) -> Lines | None:
        """What can go out. `times`: of the lines that begin in `data`; `at`: of its first byte."""
        text = self._decoder.decode(data)
        if not self._style.whole:
            return (text, times) if text else None
        began = [self._began if self._began is not None else at] if continues else []
        text, line_times = self._separate(self._tail + text, [*began, *times], at)
        self._tail = ""
        cut = text.rfind("\n") + 1
        if not cut:
            self._began = line_times[0] if line_times else at
            self._hold(text)
            return self._overflow(at)
        return self._cut(text, cut, line_times, at)

    def flush(self) -> Lines | None:
        """The last line, with a newline if it has none; for the end of the channel."""
        rest = "".join(self._held) + self._tail + self._decoder.decode(b"", final=True)
        began, self._began = self._began, None
        self._held, self._held_chars, self._tail = [], 0, ""
        if not rest:
            return None
        return (rest + "\n", (began,) if began is not None else ()) if self._style.whole else (rest, ())

    def _cut(self, text: str, cut: int, line_times: list[float], at: float) -> Lines:
        lines = "".join((*self._held, text[:cut])) if self._held else text[:cut]
        self._held, self._held_chars = [], 0
        if not self._style.timed:
            self._hold(text[cut:])
            return lines, ()
        count = text.count("\n", 0, cut)
        line_times.extend([at] * (count - len(line_times)))
        self._began = line_times[count] if len(line_times) > count else at if cut < len(text) else None
        self._hold(text[cut:])
        return lines, line_times[:count]

    def _hold(self, text: str) -> None:
        if not text:
            return
        if self._style.separator is not None:
            start = max(text.rfind("\r", -_TAIL_CHARS), text.rfind("\x1b", -_TAIL_CHARS))
            if start >= 0:
                text, self._tail = text[:start], text[start:]
        self._held.append(text)
        self._held_chars += len(text)

    def _overflow(self, at: float) -> Lines | None:
        if self._held_chars <= LINE_CHARS_MAX:
            return None
        line = "".join(self._held) + "\n"
        self._held, self._held_chars = [], 0
        began, self._began = self._began, at
        return line, (began if began is not None else at,)

    def _separate(self, text: str, times: list[float], at: float) -> tuple[str, list[float]]:
        """With newlines for separators, and a time for every line."""
        separator = self._style.separator
        if separator is None or (self._style.usual and not any(char in text for char in _MAY_SEPARATE)):
            return text, times
        separated = separator.sub("\n", text)
        if self._style.timed and separated.count("\n") != text.count("\n"):
            times = [
                time
                for line, time in zip(text.split("\n"), _padded(times, text.count("\n") + 1, at), strict=False)
                for _ in range(separator.sub("\n", line + "\n").count("\n"))
            ]
        return separated, times


def _padded(times: list[float], count: int, at: float) -> list[float]:
    return times + [at] * (count - len(times))
