"""What the child wrote is what arrives: at `run`'s own stdout and in the store, compared by digest."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest

CASES = {
    "random bytes": "import os\nfor _ in range({mb}): w(os.urandom(1 << 20))",
    "one line of 10 MB": "w(b'x' * 10_000_000 + b'\\n')",
    "no newline at all": "w(b'abc' * 1_000_000)",
    "no final newline": "w(b'one\\ntwo')",
    "a progress bar": "for i in range(2000): w(b'\\r%d%%' % (i // 20))\nw(b'\\n')",
    "invalid and split UTF-8": (
        "import time\nfor b in 'é€😀'.encode() + b'\\xff\\xfe\\xc3': w(bytes([b])); time.sleep(0.005)"
    ),
    "CRLF and bare CR": "w(b'a\\r\\nb\\rc\\n\\r\\n')",
    "NUL bytes": "w(bytes(range(256)) * 100)",
    "nothing": "",
    "one byte": "w(b'x')",
    "a million one-byte writes": (
        "import os\npiece = b'ab\\n'\nfor i in range(10**6): b = piece[i % 3:i % 3 + 1]; os.write(1, b); h.update(b)"
    ),
}
CHILD = """
import hashlib, sys
h = hashlib.sha256()
out = sys.stdout.buffer
def w(b):
    h.update(b); out.write(b); out.flush()
{body}
open(sys.argv[1], "w").write(h.hexdigest())
"""


@pytest.mark.parametrize("case", CASES)
def test_what_the_child_wrote_is_what_run_prints_and_what_is_kept(farm, tmp_path, case):
    digest = tmp_path / "digest"
    script = tmp_path / "child.py"
    script.write_text(CHILD.replace("{body}", CASES[case].replace("{mb}", "100")))
    ran = farm.tailrace("run", "--on", "w1", "--", sys.executable, script, digest)
    written = digest.read_text()
    assert hashlib.sha256(ran.stdout).hexdigest() == written
    kept = farm.tailrace("logs", "last", "--raw").stdout
    assert hashlib.sha256(kept).hexdigest() == written
    assert hashlib.sha256(farm.tailrace("logs", "last", "--channel", "stdout", "--raw").stdout).hexdigest() == written
    if case.startswith("a million"):
        records = json.loads(farm.tailrace("--json", "show", "last").stdout)["receipt"]["records"]
        assert records < 10_000


def test_the_two_streams_keep_their_order(farm):
    child = "import os, time\nfor i in range(10):\n os.write(1 + i % 2, b'%d\\n' % i)\n time.sleep(0.05)"
    ran = farm.tailrace("run", "--on", "w1", "--", sys.executable, "-c", child)
    assert ran.stdout == b"0\n2\n4\n6\n8\n"
    assert ran.stderr == b"1\n3\n5\n7\n9\n"
    assert farm.tailrace("logs", "last", "--raw").stdout == b"".join(b"%d\n" % i for i in range(10))
