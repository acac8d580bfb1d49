"""The README's first program runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_first_program_runs_as_printed(tmp_path):
    [program] = re.findall(r"```python\n# first.py\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(program.splitlines()) <= 25
    (tmp_path / "first.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "first.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    [expected] = re.findall(r"```text\n# it prints\n(.*?)```", README.read_text(), re.DOTALL)
    assert done.stdout == expected
