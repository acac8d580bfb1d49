"""What a worker calls on its master while a command runs, whatever the wire.

A wire turns these into its own messages and back. `command` is the command's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailrace.messages import Value


@final
@attrs.frozen
class Text:
    """Output. `times`: Unix seconds at which each line began that begins in it, as far as they are known.

    When it is sent `text` is a `str`. What is received may be its UTF-8, and a worker of Python 2 sends bytes
    of its own: they are taken as they are.
    """

    channel: str
    name: str | None
    text: str | bytes | memoryview
    times: Sequence[float] = ()


@final
@attrs.frozen
class Item:
    """`rc`, `elapsed`, `files` and the like."""

    key: str
    value: Value


Element: TypeAlias = Text | Item


@final
@attrs.frozen
class Update:
    """Output and results, in order."""

    command: str
    elements: tuple[Element, ...]


@final
@attrs.frozen
class Complete:
    """The command is over. `failure`: (type, text) of what kept it from its work."""

    command: str
    failure: tuple[str, str] | None


@final
@attrs.frozen
class Write:
    """A block of the file, or of the tar stream, that the worker uploads."""

    command: str
    data: bytes | memoryview


@final
@attrs.frozen
class CloseWriter:
    """The uploaded file is whole."""

    command: str


@final
@attrs.frozen
class Utime:
    """The times of the uploaded file. On these wires it comes after `CloseWriter`. `None`: the worker has none."""

    command: str
    accessed: float | None
    modified: float | None


@final
@attrs.frozen
class Unpack:
    """The uploaded tar stream is whole. No `CloseWriter` follows."""

    command: str


@final
@attrs.frozen
class Read:
    """At most `length` bytes of the download are wanted. The answer is bytes; none at the end."""

    command: str
    length: int


@final
@attrs.frozen
class CloseReader:
    """No more of the download is wanted."""

    command: str


Call: TypeAlias = Update | Complete | Write | CloseWriter | Utime | Unpack | Read | CloseReader
