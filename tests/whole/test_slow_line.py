"""Over a slow line what can be compressed is, through cuts, and what arrives is what was sent."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from ..chaos.process import ProxyProcess  # noqa: TID252 - a program of the tests'
from .farm import Daemon, Farm

SIZE = 24_000_000
BYTES_S = 6_000_000
CHILD = f"""
for n in range({SIZE} // 60):
    print("[%9d] Compiling source file number %d of many, with flags" % (n, n * 7919 % 1000003), flush=n % 500 == 0)
"""


def written() -> bytes:
    lines = (
        b"[%9d] Compiling source file number %d of many, with flags\n" % (n, n * 7919 % 1000003)
        for n in range(SIZE // 60)
    )
    return b"".join(lines)


@pytest.fixture
def line(own_farm: Farm, tmp_path: Path):
    """To a worker `far` of the farm."""
    secret = own_farm.add_account("far")
    with ProxyProcess(own_farm.urls[0].partition("://")[2], f"throttle both {BYTES_S}") as proxy:
        home = tmp_path / "far"
        url = f"tailrace://{proxy.address}"
        own_farm.tailrace("worker", "create", home, "--master", url, "--name", "far", "--secret-file", secret)
        worker = Daemon("worker", "serve", home)
        own_farm.daemons.append(worker)
        worker.line("attached ")
        yield proxy
        own_farm.close()


def test_a_log_goes_compressed_also_when_the_line_is_cut(own_farm, line):
    line.do(f"cut rst up +{SIZE // 20}")
    line.do(f"cut rst up +{SIZE // 10}")
    ran = own_farm.tailrace("run", "--on", "far", "--", sys.executable, "-c", CHILD)
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(written()).digest()
    counted = line.count()
    assert counted["cuts"] == 2
    assert counted["up"] < SIZE / 2
    assert own_farm.tailrace("verify", "last").stdout.decode().rstrip().endswith("ok")


def test_a_file_goes_compressed_both_ways(own_farm, line, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(written())
    own_farm.tailrace("put", source, "far:there")
    assert line.count()["down"] < SIZE / 2
    own_farm.tailrace("get", "far:there", back)
    assert line.count()["up"] < SIZE / 2
    assert back.read_bytes() == source.read_bytes()
