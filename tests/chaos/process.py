"""The proxy as a process of its own, for tests and benchmarks that have no event loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]


class ProxyProcess:
    """`with ProxyProcess("127.0.0.1:7117") as proxy`: `proxy.address` is where to connect instead."""

    def __init__(self, target: str, *commands: str) -> None:
        told = [word for command in commands for word in ("--do", command)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.proxy", target, *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.address = self._answer().removeprefix("listening ")

    def do(self, command: str) -> str:
        """Say a line of the proxy's protocol."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer.startswith("error"):
            raise ValueError(answer)
        return answer

    def count(self) -> dict[str, int]:
        counted: dict[str, int] = json.loads(self.do("count"))
        return counted

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy is gone")
        return line.rstrip("\n")
