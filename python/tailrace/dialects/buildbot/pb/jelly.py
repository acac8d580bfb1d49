"""Jelly: s-expressions ⇄ values. A closed set of forms: nothing is looked up by name, and nothing is ever instantiated.

A bare list on the wire is never a value: its first element names its form, and `_FORMS` has all of them. References to
objects become numbers (`Remote`, `Local`), which the broker counts; failures become values (`Failure`).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import TYPE_CHECKING, Final, final

import attrs

from tailrace.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailrace._core import Sexp

WEIGHT_MAX: Final = 1 << 21
"""What one value may weigh, with everything that it refers to twice counted twice: an element is 1, 32 bytes are 1.
More than the decoder of banana lets through; it keeps references from multiplying that."""

FAILURE_TAG: Final = b"twisted.spread.pb.CopyableFailure"


class JellyError(Exception):
    """The peer sent what is no value."""


@final
@attrs.frozen
class Remote:
    """An object of the sender, by its number."""

    luid: int


@final
@attrs.frozen
class Local:
    """An object of the receiver, come home."""

    luid: int


@final
@attrs.frozen
class Failure:
    """What went wrong at the peer. `type` and `parents` are dotted names, which mean nothing here but themselves."""

    type: str
    text: str
    parents: tuple[str, ...] = ()

    def is_a(self, name: str) -> bool:
        """Whether it is of this class, or of one derived from it."""
        return name == self.type or name in self.parents


@final
@attrs.frozen
class Opaque:
    """What the sender could not send. It stands in failures, where nobody reads it."""

    what: str


# ---------------------------------------------------------------- encoding


def jelly(value: object) -> Sexp:  # noqa: C901 - one row for each kind of value
    """A value as it crosses. Text that is no Unicode (a file's name) goes with question marks.

    Raises:
        LocalProtocolError: it has no form.
    """
    match value:
        case str():
            return (b"unicode", value.encode("utf-8", "replace"))
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case None:
            return (b"None",)
        case bool():
            return (b"boolean", b"true" if value else b"false")
        case int() | float():
            return value
        case Remote(luid):
            return (b"remote", luid)
        case Local(luid):
            return (b"local", luid)
        case Failure():
            return (FAILURE_TAG, _jelly_failure(value))
        case tuple():
            return (b"tuple", *map(jelly, value))
        case Mapping():
            return (b"dictionary", *((jelly(key), jelly(item)) for key, item in value.items()))
        case Sequence():
            return (b"list", *map(jelly, value))
        case frozenset():
            return (b"frozenset", *map(jelly, value))
        case AbstractSet():
            return (b"set", *map(jelly, value))
        case Decimal():
            return _jelly_decimal(value)
        case datetime.datetime() if value.tzinfo is None:
            parts = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
            return (b"datetime", _numbers(*parts))
        case datetime.date() if not isinstance(value, datetime.datetime):
            return (b"date", _numbers(value.year, value.month, value.day))
        case datetime.time() if value.tzinfo is None:
            return (b"time", _numbers(value.hour, value.minute, value.second, value.microsecond))
        case datetime.timedelta():
            return (b"timedelta", _numbers(value.days, value.seconds, value.microseconds))
        case _:
            raise LocalProtocolError(f"a {type(value).__name__} has no form in Perspective Broker")


def _jelly_failure(failure: Failure) -> Sexp:
    # What real peers need, and no more (pb.md 2.2). `type` is a byte string also from Python 3.
    return jelly(
        {
            "type": failure.type.encode(),
            "value": failure.text,
            "parents": list(failure.parents or (failure.type,)),
            "traceback": "Traceback unavailable\n",
            "tb": None,
            "frames": [],
            "stack": [],
        }
    )


def _jelly_decimal(value: Decimal) -> Sexp:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise LocalProtocolError(f"{value} has no form in Perspective Broker")
    mantissa = int("".join(map(str, digits)) or "0")
    return (b"decimal", -mantissa if sign else mantissa, exponent)


def _numbers(*numbers: int) -> bytes:
    return " ".join(map(str, numbers)).encode()


# ---------------------------------------------------------------- decoding


def unjelly(sexp: Sexp) -> object:
    """The value of an s-expression, as banana gave it.

    Raises:
        JellyError: it is none, or it holds a form that is not taken.
    """
    return _Unjellier(sexp).value(sexp)


def remotes(value: object) -> list[Remote]:
    """Every reference to an object of the sender's in a value, each as often as it was sent."""
    found: list[Remote] = []
    _collect(value, found, set())
    return found


def _collect(value: object, found: list[Remote], seen: set[int]) -> None:
    if isinstance(value, Remote):
        found.append(value)
    elif isinstance(value, list | tuple | dict | set | frozenset):
        if id(value) in seen:
            return
        seen.add(id(value))
        for item in value.items() if isinstance(value, dict) else value:
            _collect(item, found, seen)


@final
class _Unjellier:
    """One value, within which references are numbered."""

    def __init__(self, whole: Sexp) -> None:
        self._whole = whole
        self._weight = 0
        self._known: dict[int, tuple[object, int]] = {}
        self._open: set[int] = set()
        self._forms: dict[int, Sexp] | None = None

    def value(self, sexp: Sexp) -> object:
        if isinstance(sexp, bytes):
            self._weigh(1 + len(sexp) // 32)
            return sexp
        self._weigh(1)
        if isinstance(sexp, int | float):
            return sexp
        if not sexp or not isinstance(sexp[0], bytes):
            raise JellyError("a list that names no form")
        form = _FORMS.get(sexp[0])
        if form is None:
            raise JellyError(f"the form {sexp[0][:64]!r} is not taken")
        try:
            return form(self, sexp[1:])
        except (ValueError, TypeError, ArithmeticError) as error:
            raise JellyError(f"{sexp[0].decode()}: {error!s:.200}") from error

    def _weigh(self, weight: int) -> None:
        self._weight += weight
        if self._weight > WEIGHT_MAX:
            raise JellyError("a value that is too large")

    # one method for each form; they raise ValueError or TypeError for what is malformed

    def read_unicode(self, rest: Sequence[Sexp]) -> str:
        [utf8] = rest
        data = _bytes(utf8)
        self._weigh(len(data) // 32)
        return data.decode("utf-8")

    def read_none(self, rest: Sequence[Sexp]) -> None:
        _empty(rest)

    def read_boolean(self, rest: Sequence[Sexp]) -> bool:
        [word] = rest
        if word not in (b"true", b"false"):
            raise ValueError("neither true nor false")
        return word == b"true"

    def read_list(self, rest: Sequence[Sexp]) -> list[object]:
        return [self.value(item) for item in rest]

    def read_tuple(self, rest: Sequence[Sexp]) -> tuple[object, ...]:
        return tuple([self.value(item) for item in rest])

    def read_set(self, rest: Sequence[Sexp]) -> set[object]:
        return {self.value(item) for item in rest}

    def read_frozenset(self, rest: Sequence[Sexp]) -> frozenset[object]:
        return frozenset([self.value(item) for item in rest])

    def read_dictionary(self, rest: Sequence[Sexp]) -> dict[object, object]:
        entries: dict[object, object] = {}
        for pair in rest:
            if isinstance(pair, bytes | int | float) or len(pair) != 2:
                raise ValueError("an entry that is no pair")
            entries[self.value(pair[0])] = self.value(pair[1])
        return entries

    def read_decimal(self, rest: Sequence[Sexp]) -> Decimal:
        mantissa, exponent = map(_int, rest)
        return Decimal(mantissa).scaleb(exponent)

    def read_datetime(self, rest: Sequence[Sexp]) -> datetime.datetime:
        return datetime.datetime(*_parts(rest, 7))  # type: ignore[arg-type]

    def read_date(self, rest: Sequence[Sexp]) -> datetime.date:
        return datetime.date(*_parts(rest, 3))

    def read_time(self, rest: Sequence[Sexp]) -> datetime.time:
        return datetime.time(*_parts(rest, 4))  # type: ignore[arg-type]

    def read_timedelta(self, rest: Sequence[Sexp]) -> datetime.timedelta:
        return datetime.timedelta(*_parts(rest, 3))

    def read_remote(self, rest: Sequence[Sexp]) -> Remote:
        [luid] = rest
        return Remote(_int(luid))

    def read_local(self, rest: Sequence[Sexp]) -> Local:
        [luid] = rest
        return Local(_int(luid))

    def read_failure(self, rest: Sequence[Sexp]) -> Failure:
        [state] = rest
        fields = self.value(state)
        if not isinstance(fields, dict):
            raise TypeError("a failure's state is a dictionary")
        named = {as_text(key): value for key, value in fields.items()}
        parents = named.get("parents")
        return Failure(
            _said(named.get("type")),
            _said(named.get("value")),
            tuple(map(_said, parents)) if isinstance(parents, list | tuple) else (),
        )

    def read_opaque(self, rest: Sequence[Sexp]) -> Opaque:
        return Opaque(repr(rest)[:80])

    def read_reference(self, rest: Sequence[Sexp]) -> object:
        number, form = rest
        return self._refer(_int(number), form)

    def read_dereference(self, rest: Sequence[Sexp]) -> object:
        [sexp] = rest
        number = _int(sexp)
        known = self._known.get(number)
        if known is not None:
            value, weight = known
            self._weigh(weight)
            return value
        # It may come before the place that it means.
        if self._forms is None:
            self._forms = {}
            _find_references(self._whole, self._forms)
        if number not in self._forms:
            raise ValueError(f"there is no reference {number}")
        return self._refer(number, self._forms[number])

    def _refer(self, number: int, form: Sexp) -> object:
        if number in self._known:
            # Taken early, by a dereference that came before.
            value, weight = self._known[number]
            self._weigh(weight)
            return value
        if number in self._open:
            raise ValueError("a value that holds itself")
        self._open.add(number)
        before = self._weight
        value = self.value(form)
        self._open.discard(number)
        self._known[number] = (value, self._weight - before)
        return value


def _find_references(sexp: Sexp, found: dict[int, Sexp]) -> None:
    if isinstance(sexp, bytes | int | float) or not sexp:
        return
    if sexp[0] == b"reference" and len(sexp) == 3 and isinstance(sexp[1], int):
        found.setdefault(sexp[1], sexp[2])
    for item in sexp:
        _find_references(item, found)


_FORMS: Final[Mapping[bytes, Callable[[_Unjellier, Sequence[Sexp]], object]]] = {
    b"unicode": _Unjellier.read_unicode,
    b"None": _Unjellier.read_none,
    b"dictionary": _Unjellier.read_dictionary,
    b"list": _Unjellier.read_list,
    b"tuple": _Unjellier.read_tuple,
    b"boolean": _Unjellier.read_boolean,
    b"remote": _Unjellier.read_remote,
    b"local": _Unjellier.read_local,
    b"reference": _Unjellier.read_reference,
    b"dereference": _Unjellier.read_dereference,
    FAILURE_TAG: _Unjellier.read_failure,
    b"set": _Unjellier.read_set,
    b"frozenset": _Unjellier.read_frozenset,
    b"decimal": _Unjellier.read_decimal,
    b"datetime": _Unjellier.read_datetime,
    b"date": _Unjellier.read_date,
    b"time": _Unjellier.read_time,
    b"timedelta": _Unjellier.read_timedelta,
    b"persistent": _Unjellier.read_opaque,
    b"unpersistable": _Unjellier.read_opaque,
}


def as_text(value: object) -> str:
    """Text, also as Python 2 sent it.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    raise TypeError(f"text, not {type(value).__name__}")


def _said(value: object) -> str:
    """What a failure says, whatever its sender made of it."""
    return as_text(value) if isinstance(value, bytes | str) else ""


def _bytes(sexp: Sexp) -> bytes:
    if not isinstance(sexp, bytes):
        raise TypeError("a byte string is wanted")
    return sexp


def _int(sexp: Sexp) -> int:
    if not isinstance(sexp, int):
        raise TypeError("an integer is wanted")
    return sexp


def _parts(rest: Sequence[Sexp], count: int) -> list[int]:
    [text] = rest
    parts = _bytes(text)[:256].split(b" ")
    if len(parts) != count:
        raise ValueError(f"{count} numbers are wanted")
    return [int(part) for part in parts]


def _empty(rest: Sequence[Sexp]) -> None:
    if rest:
        raise ValueError("nothing follows")
