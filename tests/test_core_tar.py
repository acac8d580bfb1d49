"""Tar streams, with Python's tarfile as the oracle in both directions."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace._core import TarDecoder, TarEncoder
from tailrace.errors import LocalProtocolError, UnsafeArchive

KINDS = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE}
NAME = st.text("abc/ü\udcff", min_size=1, max_size=300).filter(
    lambda name: not name.startswith("/") and name[-1] != "/"
)
ENTRY = st.tuples(
    NAME,
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 0o777),
    st.integers(-(2**35), 2**35),
    st.binary(max_size=1500),
    NAME,
)


def decode(data, step=1000):
    decoder, entries = TarDecoder(), []

    def take():
        while (event := decoder.next_event()) is not None:
            if isinstance(event, memoryview):
                entries[-1][-1] += event
            else:
                entries.append([event.path, event.kind, event.mode, event.mtime_ns, event.target, bytearray()])

    for begin in range(0, len(data), step):
        decoder.receive_data(data[begin : begin + step])
        take()
    decoder.receive_eof()
    take()
    assert decoder.finished
    return [tuple(entry) for entry in entries]


def bytes_of(name):
    return name.encode("utf-8", "surrogateescape")


@given(st.lists(ENTRY, max_size=5))
def test_tarfile_reads_what_is_encoded(entries):
    encoder = TarEncoder()
    for name, kind, mode, mtime, data, target in entries:
        data = data if kind == "file" else b""
        encoder.entry(bytes_of(name), kind, mode, mtime * 10**9, len(data), bytes_of(target))
        encoder.data(data)
    encoder.finish()
    with tarfile.open(fileobj=io.BytesIO(encoder.take()), encoding="utf-8", errors="surrogateescape") as tar:
        for member, (name, kind, mode, mtime, data, target) in zip(tar, entries, strict=True):
            assert (member.name, member.type, member.mode, int(member.mtime)) == (name, KINDS[kind], mode, mtime)
            if kind in ("symlink", "hardlink"):
                assert member.linkname == target
            if kind == "file":
                assert tar.extractfile(member).read() == data


@given(st.lists(ENTRY, max_size=5), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 5000))
def test_what_tarfile_writes_is_decoded(entries, form, step):
    buffer, expected = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, kind, mode, mtime, data, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = KINDS[kind], mode, mtime
            data = data if kind == "file" else b""
            info.size = len(data)
            if kind in ("symlink", "hardlink"):
                info.linkname = target
            tar.addfile(info, io.BytesIO(data))
            expected.append((bytes_of(name), kind, mode, mtime * 10**9, bytes_of(info.linkname), data))
    assert decode(buffer.getvalue(), step) == expected


def test_fractions_of_a_second_are_kept():
    encoder = TarEncoder()
    for mtime_ns in (1_500_000_000, -1, -1_999_999_999, 10**18 + 1):
        encoder.entry(b"f", "file", 0o644, mtime_ns)
    encoder.finish()
    data = encoder.take()
    assert [entry[3] for entry in decode(data)] == [1_500_000_000, -1, -1_999_999_999, 10**18 + 1]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [member.mtime for member in tar][:2] == [1.5, -1e-9]


def test_what_cannot_be_an_entry_is_the_callers_fault():
    encoder = TarEncoder()
    for arguments in ((b"", "file"), (b"a\0b", "file"), (b"l", "symlink")):
        with pytest.raises(LocalProtocolError):
            encoder.entry(*arguments, 0o644, 0)
    with pytest.raises(ValueError, match="no entry"):
        encoder.entry(b"f", "device", 0o644, 0)
    encoder.entry(b"f", "file", 0o644, 0, 3)
    assert encoder.missing == 3
    with pytest.raises(LocalProtocolError):
        encoder.finish()


def test_an_error_stays():
    decoder = TarDecoder()
    decoder.receive_data(b"x" * 512)
    for _ in range(2):
        with pytest.raises(UnsafeArchive, match="checksum"):
            decoder.next_event()
    decoder.receive_data(bytes(1024))
    with pytest.raises(UnsafeArchive, match="checksum"):
        decoder.next_event()
