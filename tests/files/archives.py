"""Archives for the tests: by Python's tarfile, which is not ours, and trees to compare."""

import io
import os
import stat
import tarfile


def archive(*members, format=tarfile.PAX_FORMAT):  # noqa: A002 - tarfile's name
    """An archive of (name, type, content or link target) members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                tar.addfile(info)
    return buffer.getvalue()


def file(name, content=b"new"):
    return name, tarfile.REGTYPE, content


def directory(name):
    return name, tarfile.DIRTYPE, ""


def symlink(name, target):
    return name, tarfile.SYMTYPE, target


def hardlink(name, target):
    return name, tarfile.LNKTYPE, target


def snapshot(root):
    """All that stands below `root`: path → (type, permission bits, content)."""
    found = {}
    for parent, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(parent, name)
            info = os.lstat(path)
            content = None
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as opened:
                    content = opened.read()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            mode = 0 if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(info.st_mode)
            found[os.path.relpath(path, root)] = (stat.S_IFMT(info.st_mode), mode, content)
    return found
