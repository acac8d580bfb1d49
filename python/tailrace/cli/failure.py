"""How a command ends when it does not end well: one line, and an exit code."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tailrace.errors import LocalProtocolError, TailraceError

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSFER_FAILED: Final = 1
NOT_VERIFIED: Final = 1
USAGE: Final = 2
TIMED_OUT: Final = 124
OURS: Final = 125  # Tailrace itself failed, or the run was lost
INTERRUPTED: Final = 130
SIGNALLED: Final = 128  # plus the signal's number
UNKNOWN_SIGNAL: Final = 255
OUTPUT_CLOSED: Final = 141  # 128 + SIGPIPE: whoever read our output went away


class Failure(Exception):
    """What went wrong and what to do about it; `str` is the line that the user sees."""

    def __init__(self, what: str, todo: str = "", *, code: int = OURS) -> None:
        super().__init__(what, todo)
        self.what = what
        self.todo = todo
        self.code = code

    def __str__(self) -> str:
        return one_line(f"{self.what}; {self.todo}" if self.todo else self.what)


def explain(error: BaseException) -> int:
    """Say in a line what ended the command, and return the exit code for it.

    Of several errors that came at once the one that was meant for the user counts. No traceback, unless
    TAILRACE_TRACEBACK asks for one.
    """
    found = list(_leaves(error))
    if os.environ.get("TAILRACE_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    for leaf in found:
        if isinstance(leaf, Failure):
            say(str(leaf))
            return leaf.code
    for leaf in found:
        if isinstance(leaf, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(leaf, BrokenPipeError):
            _drop_output()
            return OUTPUT_CLOSED
        if isinstance(leaf, TailraceError | OSError):
            say(one_line(_said(leaf)))
            return OURS
    first = found[0]
    say(one_line(f"a fault of Tailrace: {type(first).__name__}: {first}; TAILRACE_TRACEBACK=1 shows where"))
    return OURS


@contextmanager
def usage() -> Iterator[None]:
    """What was typed is looked at: what is wrong with it is a matter of usage."""
    try:
        yield
    except LocalProtocolError as error:
        raise Failure(str(error), code=USAGE) from error


def say(line: str) -> None:
    """One line of ours, for a person, on standard error."""
    os.write(2, f"tailrace: {line}\n".encode(errors="backslashreplace"))


def _said(error: TailraceError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def one_line(text: str) -> str:
    """`text` without line breaks and without anything that a terminal would act on."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions themselves, without the groups in which nurseries hand them up."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _drop_output() -> None:
    """Nobody reads standard output any more: what is still buffered must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
