"""Paths of an archive, step by step: what keeps them below their root."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, final

from tailrace.errors import UnsafeArchive

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPTH_MAX = 256
"""Directories below each other: one descriptor is open for each."""
LINKS_MAX = 40
"""Links that are followed one after another, as in Linux: more lead nowhere."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def components(path: bytes, what: str) -> tuple[bytes, ...]:
    """The steps of a path in an archive; none for the root itself, which some archives call `/` or `.`.

    Raises:
        UnsafeArchive: it is absolute, steps up, or is too deep.
    """
    if path == b"/":
        return ()
    if path.startswith(b"/"):
        raise UnsafeArchive(f"the {what} {text(path)} is absolute")
    steps = tuple(step for step in path.split(b"/") if step not in (b"", b"."))
    if b".." in steps:
        raise UnsafeArchive(f"the {what} {text(path)} steps up")
    if len(steps) > DEPTH_MAX:
        raise UnsafeArchive(f"a {what} of {len(steps)} steps")
    return steps


def symlink_leaves(place: tuple[bytes, ...], target: bytes, symlinks: Mapping[tuple[bytes, ...], bytes]) -> bool:
    """Whether a link to `target` in the directory `place` leads above the root, other links of the archive followed."""
    here = list(place)
    ahead = target.split(b"/")[::-1]
    links = 0
    while ahead:
        match ahead.pop():
            case b"" | b".":
                continue
            case b"..":
                if not here:
                    return True
                here.pop()
            case step:
                here.append(step)
                onward = symlinks.get(tuple(here))
                if onward is not None:
                    links += 1
                    if links > LINKS_MAX:
                        return False
                    here.pop()
                    ahead.extend(onward.split(b"/")[::-1])
    return False


def text(path: bytes) -> str:
    """A path of an archive, for people and for their terminals."""
    return ascii(os.fsdecode(path))[1:-1]


@final
class Directories:
    """The directories below `root` by their steps, opened without ever passing a link.

    Those on the way to the last one stay open: an archive's entries mostly stand together. A descriptor that was handed
    out is good until the next call.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._way: list[tuple[bytes, int]] = []

    def open(self, path: tuple[bytes, ...]) -> int:
        """The directory at `path`, made with its parents where it is missing."""
        return self._walk(path, make=True)

    def find(self, path: tuple[bytes, ...]) -> int:
        """The directory at `path`. Raises FileNotFoundError if there is none."""
        return self._walk(path, make=False)

    def close(self) -> None:
        self._leave(0)

    def _walk(self, path: tuple[bytes, ...], make: bool) -> int:
        depth = 0
        for (step, _), wanted in zip(self._way, path, strict=False):
            if step != wanted:
                break
            depth += 1
        self._leave(depth)
        descriptor = self._way[-1][1] if self._way else self._root
        for step in path[depth:]:
            descriptor = _step(descriptor, step, make)
            self._way.append((step, descriptor))
        return descriptor

    def _leave(self, depth: int) -> None:
        while len(self._way) > depth:
            os.close(self._way.pop()[1])


def _step(parent: int, name: bytes, make: bool) -> int:
    try:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UnsafeArchive(f"a path leads through {text(name)}, which is no directory") from None
        raise
    os.mkdir(name, dir_fd=parent)
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
