"""What goes wrong, as it crosses: errors of ours, and why a worker is not let in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from tailrace.dialects.buildbot.pb.jelly import Failure
from tailrace.dialects.buildbot.pb.objects import Perspective

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

NO_SUCH_METHOD: Final = "twisted.spread.flavors.NoSuchMethod"
UNAUTHORIZED: Final = "twisted.cred.error.UnauthorizedLogin"
_BASES: Final = ("builtins.Exception", "builtins.BaseException", "builtins.object")
# Names that a real peer looks for; everything else is told by its text.
_DOTTED: Final[Mapping[str, str]] = {
    "UnknownCommand": "buildbot_worker.base.UnknownCommand",
    "NoSuchMethod": NO_SUCH_METHOD,
    "UnauthorizedLogin": UNAUTHORIZED,
}
_BUILTIN: Final = frozenset(
    {"AttributeError", "OSError", "RuntimeError", "TypeError", "ValueError", "TimeoutError", "KeyError"}
)
_INVALID_OBJECT: Final = Failure("twisted.spread.pb.Error", "Invalid Object ID")


def failure(kind: str, text: str) -> Failure:
    """An error of ours as it crosses."""
    dotted = _DOTTED.get(kind) or (f"builtins.{kind}" if kind in _BUILTIN else f"tailrace.errors.{kind}")
    return Failure(dotted, text, (dotted, *_BASES))


def describe(failed: Failure) -> tuple[str, str]:
    """A failure of the peer's as (type, text): the last part of its dotted name."""
    if failed.type == _INVALID_OBJECT.type and failed.text == _INVALID_OBJECT.text:
        # The object was a command, or a file of one.
        return "UnknownCommand", failed.text
    return failed.type.rpartition(".")[2] or "RemoteError", failed.text


REASONS: Final = frozenset({"not now", "rejected", "draining"})
_DUPLICATE: Final = "rejecting duplicate worker"


def refusal(reason: str, text: str) -> Failure:
    """Why a worker is not let in.

    A real worker that is told `UnauthorizedLogin` comes again and again; told anything else it ends its process. That
    is what it takes to get rid of the second of two workers that have one name.
    """
    if reason == "duplicate":
        return failure("RuntimeError", f"{_DUPLICATE}: {text}")
    refused = failure("UnauthorizedLogin", "" if reason == "credentials" else f"{reason}: {text}")
    return attrs.evolve(refused, parents=(UNAUTHORIZED, "twisted.cred.error.LoginFailed", *_BASES))


def describe_refusal(failed: Failure) -> tuple[str, str]:
    """(reason, text) of a failed login, whoever's."""
    if failed.is_a(UNAUTHORIZED):
        reason, colon, text = failed.text.partition(": ")
        if colon and reason in REASONS:
            return reason, text
        return "credentials", failed.text or "unknown worker or wrong secret"
    if failed.text.startswith(_DUPLICATE):
        return "duplicate", failed.text.removeprefix(_DUPLICATE).removeprefix(": ") or "the name is attached already"
    return "rejected", ": ".join(filter(None, describe(failed)))


class NoSuchMethodError(Exception):
    """The object has no such method."""

    def __init__(self, target: Hashable, method: str) -> None:
        super().__init__(method)
        self.failure = (
            failure("AttributeError", f"perspective_{method[:64]}")
            if isinstance(target, Perspective)
            else Failure(NO_SUCH_METHOD, f"No such method: remote_{method[:64]}", (NO_SUCH_METHOD,))
        )
