"""A consumer that is slow slows the child, not the machine, and nobody else on the connection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "megabytes", [1_000, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_a_slow_impl_bounds_all_memory_and_disturbs_nobody(tmp_path, megabytes):
    script = Path(__file__).with_name("slow_master.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "w"), str(megabytes)],
        capture_output=True,
        timeout=100 + megabytes / 10,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    figures = json.loads(done.stdout)
    assert figures["bytes"] == megabytes * 1_000_000
    assert (figures["rc"], figures["failure"]) == (0, "None")
    for party in ("master", "worker", "supervisor"):
        assert figures[party] < 64 << 20, figures
    # Other tenants of the machine may steal a slice now and then: the median is what is promised.
    for step in zip(*figures["latencies"], strict=True):
        assert sorted(step)[len(step) // 2] < 0.1, figures["latencies"]
