"""What a log may do to the terminal on which it is shown: colours, carriage returns and tabs, and nothing else.

A log holds whatever a build has printed, and a terminal obeys control sequences: they can retitle it, move what was
printed, answer on its input. Here they become visible text. What is not a terminal gets the exact bytes.
"""

from __future__ import annotations

import os
import re
import sys
from typing import final

_SUSPECT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""If none of these occurs, nothing is to be done: the usual case, found at the speed of memory."""

_TOKEN = re.compile(
    rb"(?P<colour>\x1b\[[0-9;:]{0,64}m)"
    rb"|(?P<c1>\xc2[\x80-\x9f])"
    rb"|(?P<text>[\x09\x0a\x0d\x20-\x7e]+"
    rb"|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}|[\xa0-\xff])"
    rb"|(?P<control>[\x00-\x1f\x7f])"
    rb"|(?P<stray>[\x80-\x9f])"
)
_UNFINISHED = re.compile(rb"(\x1b(\[[0-9;:]{0,64})?|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
_RESET = b"\x1b[0m"


@final
class Harmless:
    """A filter over one stream of pieces; a sequence that is split over two of them is judged whole."""

    def __init__(self) -> None:
        self._held = b""
        self._coloured = False

    def receive_data(self, data: bytes) -> bytes:
        data = self._held + data
        self._held = b""
        if not _SUSPECT.search(data):
            return data if not _ends_unfinished(data) else self._hold(data)
        return _TOKEN.sub(self._shown, self._hold(data))

    def receive_eof(self) -> bytes:
        """What was held back, and the end of whatever colour the log has left behind."""
        rest = _TOKEN.sub(self._shown, self._held)
        self._held = b""
        return rest + self.reset()

    def reset(self) -> bytes:
        """What ends the colour that the log has left behind, if it has."""
        coloured, self._coloured = self._coloured, False
        return _RESET if coloured else b""

    def _hold(self, data: bytes) -> bytes:
        if unfinished := _UNFINISHED.search(data):
            self._held = data[unfinished.start() :]
            return data[: unfinished.start()]
        return data

    def _shown(self, found: re.Match[bytes]) -> bytes:
        token = found.group()
        match found.lastgroup:
            case "colour":
                self._coloured = token not in (_RESET, b"\x1b[m")
                return token
            case "text":
                return token
            case "c1":
                return b"\\x%02x" % token[1]
            case "stray":
                return b"\\x%02x" % token[0]
            case _:
                return b"^" + bytes([token[0] ^ 0x40])


def _ends_unfinished(data: bytes) -> bool:
    return bool(data) and data[-1] >= 0xC2


def printable(text: str) -> str:
    """Text from elsewhere (names, titles) on one line, with nothing in it that a terminal would act on."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: found.group().encode("unicode_escape").decode(), text)


def colours(fd: int = 1) -> bool:
    """Whether colours and progress are wanted there."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def interactive(stream: int = 2) -> bool:
    """Whether a person may be looking on, so that progress makes sense."""
    return os.isatty(stream) and os.environ.get("TERM") != "dumb" and sys.stderr is not None
