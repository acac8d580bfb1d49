"""What is said of a command that goes on: by a master that was restarted (`Resume`), and by the worker that holds
it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

from tailrace.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace.link.impl import FileReaderImpl, FileWriterImpl, RemoteCommandImpl
    from tailrace.messages import Value


@final
@attrs.frozen
class Resume:
    """What `resumeCommand` of a master returns: go on with a command of an earlier process of this master.

    Attributes:
        impl: Is told everything from `offset` on.
        offset: Up to where the journal is safe: a record's end.
        chain: The chain there, 32 bytes.
        args_impls: The transfer's Impls. A transfer that was under way has failed with `master restarted` all the same:
            what it had taken went with the process.
    """

    impl: RemoteCommandImpl
    offset: int
    chain: bytes
    args_impls: Mapping[str, FileWriterImpl | FileReaderImpl] = attrs.field(factory=dict)


@final
@attrs.frozen(kw_only=True)
class CommandKey:
    """Which command it is. Written down beside its journal, it lets a later process of the worker go on with it.

    Attributes:
        master: The master's id; empty on a wire that does not resume.
        digest: BLAKE3 of the whole start request: the same id with another digest is another command.
    """

    master: str
    command: str
    builder: str
    name: str
    digest: bytes


@final
@attrs.frozen(kw_only=True)
class Resumed:
    """How a worker goes on: with the journal at `offset`, where both chains are the same if `agrees`; and where it
    wants
    the rest of its download."""

    offset: int
    agrees: bool
    download: int | None = None

    def to_value(self) -> Value:
        """As the result of `resumeCommand` (PROTOCOL.md section 4)."""
        result: dict[str, Value] = {"offset": self.offset, "agrees": self.agrees}
        return result if self.download is None else {**result, "download": self.download}


def parse_resumed(value: Value) -> Resumed:
    """The result of `resumeCommand`.

    Raises:
        RemoteProtocolError: it is not what PROTOCOL.md says.
    """
    if isinstance(value, dict):
        offset, agrees, download = value.get("offset"), value.get("agrees"), value.get("download")
        if isinstance(offset, int) and isinstance(agrees, bool) and isinstance(download, int | None):
            return Resumed(offset=offset, agrees=agrees, download=download)
    raise RemoteProtocolError(f"the result of resumeCommand is {value!r:.80}")
