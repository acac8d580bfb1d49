"""The objects of Buildbot on Perspective Broker, as tokens: what is exported, and on what a method is called."""

from __future__ import annotations

from typing import TypeAlias, final

import attrs


@final
@attrs.frozen
class Bot:
    """The worker: what a master calls its mind."""


@final
@attrs.frozen
class WorkerBuilder:
    """A builder at the worker."""

    name: str


@final
@attrs.frozen
class Challenger:
    """What a worker answers the master's challenge to."""


@final
@attrs.frozen
class Perspective:
    """The master, for a worker that is attached."""


@final
@attrs.frozen
class CommandObject:
    """The master's end of a command."""

    command: str


@final
@attrs.frozen
class WriterObject:
    """What the master writes an upload with."""

    command: str


@final
@attrs.frozen
class ReaderObject:
    """What the master reads a download with."""

    command: str


MasterObject: TypeAlias = CommandObject | WriterObject | ReaderObject
