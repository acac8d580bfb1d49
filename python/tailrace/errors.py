"""What can go wrong, named by whose fault it is.

* `TailraceError`
    * `LocalProtocolError`: you asked for something that may not be asked; nothing was sent
    * `RemoteProtocolError`: the peer broke the protocol; the connection is over
    * `ConnectionClosed`: this side closed the connection
    * `ConnectionLost`: the connection broke; `maybe_done` says whether the call may have happened
    * `LoginRefused`: the master does not let this worker in; `reason` is one word
    * `RemoteError`: the far side's method raised; `type` and `text`, never a traceback
        * `UnknownCommand`: the worker has no such command
        * `CommandIdInUse`: another command has this id
    * `Unsupported`: this wire cannot carry that
    * `UnsafeArchive`: an archive wanted to leave its root
    * `LimitExceeded`: a limit of `Limits` was met
    * `StoreError`: the log store cannot do that

A non-zero `rc` is a result, not an error. What the operating system refuses stays an `OSError`.
"""

from __future__ import annotations


class TailraceError(Exception):
    """Everything that Tailrace raises on its own account."""


class LocalProtocolError(TailraceError):
    """You did what may not be done here. No byte was made of it, and the connection lives on."""


class RemoteProtocolError(TailraceError):
    """The peer did what it may not do. The connection is over."""


class ConnectionClosed(TailraceError):
    """This side closed the connection, for `reason`."""

    def __init__(self, reason: str = "closed by this side") -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectionLost(TailraceError):
    """The connection broke, or the far side closed it.

    `maybe_done`: the call was sent and not answered, so that it may have happened or not.
    `reason` is the far side's word for it, if it said one (`shutdown`, `duplicate`, …), and `said` its sentence.
    """

    def __init__(
        self, text: str = "the connection was lost", *, maybe_done: bool = False, reason: str = "", said: str = ""
    ) -> None:
        super().__init__(text)
        self.text = text
        self.maybe_done = maybe_done
        self.reason = reason
        self.said = said

    def __str__(self) -> str:
        return f"{self.text} (the call may have been carried out)" if self.maybe_done else self.text


class LoginRefused(TailraceError):
    """The master refuses this worker. `reason`: `version`, `credentials`, `duplicate`, `not now` or `rejected`."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason, text)
        self.reason = reason
        self.text = text

    def __str__(self) -> str:
        return f"login refused ({self.reason}): {self.text}" if self.text else f"login refused ({self.reason})"


class RemoteError(TailraceError):
    """The far side's method raised an error of this `type`, which says `text`."""

    def __init__(self, type: str, text: str = "") -> None:  # noqa: A002 - the contract's name
        super().__init__(type, text)
        self.type = type
        self.text = text

    def __str__(self) -> str:
        return f"{self.type}: {self.text}" if self.text else self.type


class UnknownCommand(RemoteError):
    """The worker has no command of this name."""

    def __init__(self, text: str = "") -> None:
        super().__init__("UnknownCommand", text)
        self.args = (text,)


class CommandIdInUse(RemoteError):
    """Another command has this id, until its completion is durable."""

    def __init__(self, text: str = "") -> None:
        super().__init__("CommandIdInUse", text)
        self.args = (text,)


class Unsupported(TailraceError):
    """The wire named `wire` cannot carry `what`."""

    def __init__(self, wire: str, what: str = "") -> None:
        super().__init__(wire, what)
        self.wire = wire
        self.what = what

    def __str__(self) -> str:
        return f"{self.wire}: {self.what}" if self.what else self.wire


class UnsafeArchive(TailraceError):
    """An archive holds an entry that would reach outside its directory. Nothing outside was touched."""


class LimitExceeded(TailraceError):
    """A limit was met; the text says which."""


class StoreError(TailraceError):
    """The log store cannot do that; the text says why. `errno`: the system's number, if it is the disk's fault."""

    errno: int | None = None


def remote_error(type: str, text: str) -> RemoteError:  # noqa: A002 - the contract's name
    """The far side's error as the class that stands for it here."""
    if type == "UnknownCommand":
        return UnknownCommand(text)
    if type == "CommandIdInUse":
        return CommandIdInUse(text)
    return RemoteError(type, text)


def describe(error: BaseException) -> tuple[str, str]:
    """An error as (type, one line of text): what may cross the wire. Never a traceback."""
    if isinstance(error, RemoteError):
        return error.type, _one_line(error.text)
    return error.__class__.__name__, _one_line(str(error))


def _one_line(text: str) -> str:
    # A str of the wire holds at most 4,096 bytes; a character takes at most four. A file's name may be no UTF-8.
    return " ".join(text.split())[:1000].encode(errors="replace").decode()
