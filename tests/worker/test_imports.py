from __future__ import annotations

import subprocess
import sys

FORBIDDEN = ("cyclopts", "rich", "starlette", "httpx", "anycorn", "websockets", "msgspec")


def test_a_worker_imports_little():
    code = "import sys, tailrace.worker; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ran.stdout.split()
    assert "trio" in loaded
    assert [name for name in FORBIDDEN if name in loaded] == []
