from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tailrace.errors import LocalProtocolError
from tailrace.worker.identity import locked


def test_the_instance_is_made_once(tmp_path):
    with locked(tmp_path / "w") as first:
        pass
    with locked(tmp_path / "w") as second:
        pass
    assert first == second
    assert len(first) == 32


def test_a_second_process_is_told_who_is_there(tmp_path):
    code = "import pathlib, sys, tailrace.worker.identity as found; found.locked(pathlib.Path(sys.argv[1])).__enter__()"
    with locked(tmp_path), pytest.raises(LocalProtocolError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False)
    assert b"another worker runs here" in ran.stderr


def test_the_lock_ends_with_its_block(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            pass
