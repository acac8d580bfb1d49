"""The public surface is what it says, and the package itself does not go in by the front door."""

from __future__ import annotations

import re
from pathlib import Path

import tailrace

PACKAGE = Path(tailrace.__file__).parent
CONTRACT = """
    RemoteCommandImpl FileWriterImpl FileReaderImpl Updates Record Listener Connection Subscription Resume open_master
    Master Run RunResult run_worker RemoteProxy RemoteCommandProxy FileWriterProxy FileReaderProxy Limits
    TailraceError LocalProtocolError RemoteProtocolError ConnectionClosed ConnectionLost LoginRefused RemoteError
    UnknownCommand CommandIdInUse Unsupported UnsafeArchive LimitExceeded StoreError
"""


def test_everything_that_the_contract_names_is_exported():
    assert set(CONTRACT.split()) <= set(tailrace.__all__)
    assert all(hasattr(tailrace, name) for name in tailrace.__all__)
    assert sorted(tailrace.__all__) == tailrace.__all__


def test_no_module_imports_the_package_root():
    """The import contracts cannot see this, as the extension's imports look the same to them."""
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "__init__.py" and path != PACKAGE / "__main__.py":
            for line in path.read_text().splitlines():
                assert not re.match(r"\s*(from tailrace import (?!_core|__version__)|import tailrace$)", line), (
                    path,
                    line,
                )
