"""Who may log in: the question, not the answer. A table of names and secrets, that changes while it is asked."""

from __future__ import annotations

from typing import final

from tailrace.errors import LocalProtocolError

SECRET_BYTES_MAX = 4096


@final
class Accounts:
    """Worker name → secret."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}

    def update(self, name: str, secret: str | bytes | None) -> None:
        """Add or replace an account; `None` removes it. Who is attached stays so."""
        if secret is None:
            self._secrets.pop(name, None)
            return
        if not name:
            raise LocalProtocolError("a worker needs a name")
        key = secret.encode() if isinstance(secret, str) else bytes(secret)
        if not 0 < len(key) <= SECRET_BYTES_MAX:
            raise LocalProtocolError(f"a secret has 1 to {SECRET_BYTES_MAX} bytes, not {len(key)}")
        self._secrets[name] = key

    def secret(self, name: str) -> bytes:
        """The secret of this worker; `b""`, which is nobody's, for an unknown one."""
        return self._secrets.get(name, b"")

    def __len__(self) -> int:
        return len(self._secrets)
