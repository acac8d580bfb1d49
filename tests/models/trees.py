"""Trees and tar streams, one entry at a time and by plain paths: nobody may exchange anything meanwhile."""

import os
import stat
from pathlib import Path

from tailrace._core import TarDecoder, TarEncoder
from tailrace.errors import LimitExceeded, UnsafeArchive

DEPTH_MAX = 256
LINKS_MAX = 40


def packed(root):
    """The tar stream of what is below `root`, and the paths that were left out."""
    encoder, first, skipped = TarEncoder(), {}, []

    def put(path, found, kind, *more):
        encoder.entry(path, kind, stat.S_IMODE(found.st_mode), found.st_mtime_ns // 10**9 * 10**9, *more)

    def walk(directory, above):
        for name in sorted(os.listdir(directory)):
            here, path = os.path.join(directory, name), above + name
            found = os.lstat(here)
            if stat.S_ISDIR(found.st_mode):
                put(path, found, "directory")
                walk(here, path + b"/")
            elif stat.S_ISLNK(found.st_mode):
                put(path, found, "symlink", 0, os.readlink(here))
            elif not stat.S_ISREG(found.st_mode):
                skipped.append(path)
            elif first.setdefault((found.st_dev, found.st_ino), path) != path:
                put(path, found, "hardlink", 0, first[found.st_dev, found.st_ino])
            else:
                data = Path(os.fsdecode(here)).read_bytes()
                put(path, found, "file", len(data))
                encoder.data(data)

    walk(os.fsencode(root), b"")
    encoder.finish()
    return encoder.take(), skipped


def unpack(data, root, bytes_max=None):
    """Unpacks an archive below `root`, which is empty. UnsafeArchive, LimitExceeded."""
    root, left, files, links = os.fsencode(root), bytes_max, [], {}
    for event in _events(data):
        if isinstance(event, memoryview):
            with open(files[-1][0], "ab") as file:
                file.write(event)
            continue
        path = steps(event.path)
        if left is not None and path:
            left -= event.size
            if left < 0:
                raise LimitExceeded("too large")
        _make(root, event, path)
        if event.kind == "file":
            files.append((os.path.join(root, *path), event))
        if event.kind == "symlink":
            links[path] = event.target
    if any(leaves(path[:-1], target, links) for path, target in links.items()):
        raise UnsafeArchive("a link leads out")
    for place, entry in files:
        os.chmod(place, entry.mode & 0o777)
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))


def steps(path):
    """The steps of an archive's path below its root."""
    if path == b"/":
        return ()
    found = tuple(step for step in path.split(b"/") if step not in (b"", b"."))
    if path.startswith(b"/") or b".." in found or len(found) > DEPTH_MAX:
        raise UnsafeArchive(f"{path!r} leads out, or too deep")
    return found


def leaves(place, target, links):
    """Whether a link to `target` in the directory `place` leads above the root, other links followed on paper."""
    here, ahead, followed = list(place), target.split(b"/")[::-1], 0
    while ahead:
        step = ahead.pop()
        if step == b"..":
            if not here:
                return True
            here.pop()
        elif step not in (b"", b"."):
            here.append(step)
            if tuple(here) in links:
                ahead.extend(links[tuple(here)].split(b"/")[::-1])
                here.pop()
                followed += 1
                if followed > LINKS_MAX:
                    return False
    return False


def _events(data):
    decoder = TarDecoder()
    decoder.receive_data(data)
    decoder.receive_eof()
    while (event := decoder.next_event()) is not None:
        yield event


def _make(root, entry, path):
    if not path:
        if entry.kind != "directory":
            raise UnsafeArchive("no directory in the root's place")
        return
    place = os.path.join(root, *path)
    if entry.kind in ("file", "symlink"):
        _parents(root, path[:-1])
    match entry.kind:
        case "directory":
            _parents(root, path)
            os.chmod(place, entry.mode & 0o777 | 0o700)
        case "file":
            _check_new(place)
            Path(os.fsdecode(place)).touch()
        case "symlink":
            if not entry.target or entry.target.startswith(b"/"):
                raise UnsafeArchive("an empty or absolute link")
            _check_new(place)
            os.symlink(entry.target, place)
        case "hardlink":
            source = steps(entry.target)
            _parents(root, source[:-1], make=False)
            first = os.path.join(root, *source)
            if not source or not os.path.lexists(first) or not stat.S_ISREG(os.lstat(first).st_mode):
                raise UnsafeArchive("a hard link to no file")
            _parents(root, path[:-1])
            _check_new(place)
            os.link(first, place)
        case _:
            raise UnsafeArchive("a device or a pipe")


def _parents(root, path, make=True):
    """Every step is a directory and no link; what is missing is made, or is nothing to go on below."""
    for depth in range(1, len(path) + 1):
        here = os.path.join(root, *path[:depth])
        if os.path.lexists(here):
            if not stat.S_ISDIR(os.lstat(here).st_mode):
                raise UnsafeArchive("a path through what is no directory")
        elif make:
            os.mkdir(here)
        else:
            return


def _check_new(place):
    if os.path.lexists(place):
        raise UnsafeArchive("twice")
