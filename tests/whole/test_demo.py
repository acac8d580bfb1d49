"""`tailrace demo` goes as scripted, and keeps what it says that it keeps."""

from __future__ import annotations

import subprocess

from .farm import ENVIRONMENT, TAILRACE


def test_the_demo_goes_as_scripted(tmp_path):
    done = subprocess.run(
        [*TAILRACE, "demo", "--keep", str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        timeout=100,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(tmp_path / "kept") in done.stdout
    assert done.stderr == ""
