"""What is written with a journal, for a later process of the worker: whose command it is, and when it was started.

It stands in the header of a supervisor's ring, where it costs nothing; in a file beside it, if it is too long for that.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast, final

import attrs

from tailrace._core import decode_value, encode_value
from tailrace.errors import LocalProtocolError, TailraceError
from tailrace.link.resume import CommandKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace._core import Value

FILE = "command"
"""In the supervisor's directory, for a label that does not fit the ring's header."""

SUFFIX = ".command"
"""Of a command without a supervisor: the label is a file beside the supervisors' directories."""

LAYOUT = 1
"""Of the file. A later one that says less or something else has another number."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@final
@attrs.frozen(kw_only=True)
class Label:
    """Whose command a supervisor runs.

    Attributes:
        term_s: How long an interrupt gives it before it gets harsh.
        boot: The kernel's name for this run of the machine.
        started: Unix time.
    """

    key: CommandKey
    term_s: float
    boot: str
    started: float

    @classmethod
    def of(cls, key: CommandKey, term_s: float) -> Label:
        """The label of a command that is started now."""
        return cls(key=key, term_s=term_s, boot=boot_id(), started=time.time())

    def why_lost(self) -> tuple[str, str]:
        """What to say of this command when its supervisor is gone."""
        if self.boot == boot_id():
            return SUPERVISOR_LOST
        return "SupervisorLost", "the machine was restarted while the command ran"


SUPERVISOR_LOST = ("SupervisorLost", "the process that watched over the command was killed, and the command with it")


def boot_id() -> str:
    """Another one after each start of the machine; empty where the kernel has none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def encode_label(label: Label) -> bytes:
    """The label as bytes."""
    key = label.key
    return encode_value(
        {
            "layout": LAYOUT,
            "master": key.master,
            "command": key.command,
            "builder": key.builder,
            "name": key.name,
            "digest": key.digest,
            "term_s": label.term_s,
            "boot": label.boot,
            "started": label.started,
        }
    )


def write_label(path: Path, label: Label) -> None:
    """Writes it into a file, whole or not at all."""
    text = encode_label(label)
    beside = path.with_name(f"{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    beside.rename(path)


def read_label(path: Path) -> Label:
    """Reads a label's file. Raises as `decode_label`, and OSError: there is none."""
    return decode_label(path.read_bytes(), path)


def decode_label(text: bytes, path: Path) -> Label:
    """The label that was found at `path`.

    Raises:
        LocalProtocolError: it is not as it should be, or of a layout that is not known here.
    """
    try:
        entries = cast("Mapping[str, Value]", decode_value(text))
        layout = entries["layout"]
        if layout != LAYOUT:
            raise LocalProtocolError(
                f"{path}: of layout {layout!r}, which is not the layout {LAYOUT} that is known here"
            )
        key = CommandKey(
            master=str(entries["master"]),
            command=str(entries["command"]),
            builder=str(entries["builder"]),
            name=str(entries["name"]),
            digest=cast(bytes, entries["digest"]),
        )
        term_s, started = cast(float, entries["term_s"]), cast(float, entries["started"])
        return Label(key=key, term_s=float(term_s), boot=str(entries["boot"]), started=float(started))
    except (KeyError, TypeError, ValueError) as error:
        raise LocalProtocolError(f"{path}: not what a worker writes") from error
    except TailraceError as error:
        raise LocalProtocolError(str(error)) from error
