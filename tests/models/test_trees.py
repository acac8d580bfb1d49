"""Trees are packed and unpacked as by the slow twins, whatever is in them."""

import io
import os
import stat
import tarfile
from contextlib import aclosing, suppress

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.errors import LimitExceeded, UnsafeArchive
from tailrace.files import Unpacker, pack

from . import trees

STEP = st.sampled_from(["a", "b", "c", ".", "..", "", "grüße", "\udcff", "n" * 120])
TARGET = st.lists(STEP, min_size=1, max_size=4).map("/".join)
# Mostly harmless: an archive that is refused at its first entry says little.
HARMLESS = st.lists(st.sampled_from(["a", "b", "c", "grüße", "\udcff", "n" * 120]), min_size=1, max_size=3).map(
    "/".join
)
PATH = st.one_of(*[HARMLESS] * 12, TARGET)
LINK = st.lists(st.sampled_from(["a", "b", "l", "m", ".", ".."]), min_size=1, max_size=5).map("/".join)
KIND = st.sampled_from(
    [tarfile.REGTYPE] * 12 + [tarfile.DIRTYPE] * 4 + [tarfile.LNKTYPE] * 2 + [tarfile.SYMTYPE] * 3 + [tarfile.FIFOTYPE]
)
MODE = st.sampled_from([0o644, 0o755, 0o600, 0o444, 0, 0o4777, 0o2666])
MTIME = st.one_of(st.integers(-(2**31), 2**32), st.just(1.5))
# A number: so many zeros.
CONTENT = st.one_of(st.binary(max_size=600), st.just(70_000))
MEMBER = st.tuples(PATH, KIND, MODE, MTIME, CONTENT, st.one_of(PATH, TARGET))
SLOW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", encoding="utf-8", errors="surrogateescape") as tar:
        for name, kind, mode, mtime, content, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, mode, mtime
            content = bytes(content)
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = target if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def listing(root):
    """All that is below `root`: what, permissions, time, content or target, and which names are of one file."""
    found, first = {}, {}
    for parent, directories, files in os.walk(os.fsencode(root)):
        for name in sorted(directories + files):
            path = os.path.join(parent, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            here = [kind, os.path.relpath(path, os.fsencode(root))]
            if kind == stat.S_IFLNK:
                here += [os.readlink(path)]
            elif kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    here += [info.st_mode, info.st_mtime_ns, first.setdefault(info.st_ino, path) == path, file.read()]
            else:
                here += [info.st_mode]
            found[here[1]] = here
    return found


async def unpack(data, target, step, bytes_max=None):
    async with Unpacker(target, bytes_max=bytes_max) as tree:
        for begin in range(0, len(data), step):
            await tree.write(data[begin : begin + step])
        await tree.commit()


def refusal(work, *args):
    try:
        work(*args)
    except (UnsafeArchive, LimitExceeded) as error:
        return type(error)
    return None


@SLOW
@given(
    st.lists(MEMBER, max_size=8),
    st.sampled_from([None, 100, 100_000]),
    st.sampled_from([0, 0, 0, 1, 600, 1024]),
    st.sampled_from([0o022, 0o077, 0]),
    st.sampled_from([333, 1 << 20]),
)
def test_an_archive_becomes_the_twins_tree_or_is_refused_as_there(
    tmp_path_factory, members, bytes_max, cut, umask, step
):
    place = tmp_path_factory.mktemp("place")
    data = archive(members)
    data = data[: len(data) - cut]
    (place / "theirs").mkdir()
    before = os.umask(umask)
    try:
        theirs = refusal(trees.unpack, data, place / "theirs", bytes_max)
        ours = refusal(trio.run, unpack, data, place / "ours", step, bytes_max)
    finally:
        os.umask(before)
    assert ours == theirs
    if theirs is None:
        assert listing(place / "ours") == listing(place / "theirs")
    else:
        assert os.listdir(place) == ["theirs"]


@SLOW
@given(st.lists(MEMBER, max_size=8), st.sampled_from([0, 1 << 20, (2 << 20) + 5]), st.booleans())
def test_a_tree_becomes_the_twins_stream(tmp_path_factory, members, large, pipe):
    root = tmp_path_factory.mktemp("root")
    for member in members:
        # As much of it as the file system takes.
        with suppress(UnsafeArchive):
            trees.unpack(archive([member]), root)
    (root / "large").write_bytes(bytes(large))
    (root / "large again").hardlink_to(root / "large")
    if pipe:
        os.mkfifo(root / "pipe")

    async def packed():
        skipped = []
        async with aclosing(pack(root, None, skipped)) as pieces:
            return b"".join([piece async for piece in pieces]), skipped

    assert trio.run(packed) == trees.packed(root)


@SLOW
@given(LINK, LINK, st.sampled_from(["", "a/", "a/b/"]))
def test_no_link_of_an_archive_that_is_unpacked_leads_the_kernel_out(tmp_path_factory, first, second, place):
    root = tmp_path_factory.mktemp("root")
    members = [("a/b/c", tarfile.DIRTYPE, 0o755, 0, b"", ""), ("b", tarfile.DIRTYPE, 0o755, 0, b"", "")]
    links = {f"{place}l": first, "m": second}
    members += [(path, tarfile.SYMTYPE, 0o777, 0, b"", target) for path, target in links.items()]
    if refusal(trio.run, unpack, archive(members), root / "tree", 1 << 20) is None:
        for path in links:
            with suppress(OSError):
                real = os.path.realpath(root / "tree" / path, strict=True)
                assert f"{real}/".startswith(f"{root}/tree/")
