"""What happens in the demo, and what is checked of it: by content, not by hope."""

from __future__ import annotations

import shutil
import sys
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from tailrace.cli.ending import exit_code, outcome, seconds, size
from tailrace.cli.files import file_pieces, save_tree, tree_pieces

from .lines import LineView
from .project import DATA_BYTES, LONG_LINE_BYTES, tree_digest, write_grain, write_project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailrace.cli.api import Api, Json, RunInfo

    from .screen import Screen

W1: Final = "w1"
W2: Final = "w2"
_STOP_AT = b"soak: round 6"


@attrs.frozen(kw_only=True)
class Step:
    """One run of the demo, as it went."""

    name: str
    run: RunInfo
    shown: Mapping[str, bytes]
    """What was shown live, per channel."""

    def said(self, name: str) -> str:
        """The one word behind `name`, on the line of stdout that begins with it."""
        for line in self.shown["stdout"].splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == name.encode():
                return words[1].decode()
        return ""


@final
class Script:
    """Two workers, side by side: one compiles, tests and fails; one builds, grinds, sends back and is interrupted."""

    def __init__(self, api: Api, screen: Screen, scratch: Path) -> None:
        self._api = api
        self._screen = screen
        self._scratch = scratch
        self.steps: list[Step] = []
        self.checks: list[tuple[str, bool]] = []

    async def play(self) -> None:
        grain = await self._send()
        async with self._screen.moving(), trio.open_nursery() as nursery:
            nursery.start_soon(self._test)
            nursery.start_soon(self._grind, grain)
        for step in self.steps:
            await self._compare(step)

    async def _send(self) -> str:
        """Project and grain go down; returns the grain's digest."""
        source = self._scratch / "project"
        count = await trio.to_thread.run_sync(write_project, source)
        grain = await trio.to_thread.run_sync(write_grain, self._scratch / "grain.txt")
        for worker in (W1, W2):
            await self._put(worker, source, "project", "tree")
            self._screen.fact(worker, f"↓ project: a directory of {count} files")
        await self._put(W2, self._scratch / "grain.txt", "project/grain.txt", "file")
        self._screen.fact(W2, f"↓ project/grain.txt: {size(DATA_BYTES)}, sha256 {grain[:16]}…")
        return grain

    async def _test(self) -> None:
        step = await self._run(W1, "compile", sys.executable, "-m", "compileall", "-f", "mill", "tests")
        self._check("the package compiles", outcome(step.run) == "ok" and b"mill/sieve.py" in step.shown["stdout"])
        step = await self._run(W1, "test", sys.executable, "-m", "unittest", "-v")
        passed = step.shown["stderr"]
        self._check("its 16 tests pass, on stderr", outcome(step.run) == "ok" and b"Ran 16 tests" in passed)
        step = await self._run(W1, "flood", sys.executable, "-m", "unittest", "tests.flood")
        self._check("a step that fails exits with 1, as `run` would", exit_code(step.run) == 1)

    async def _grind(self, grain: str) -> None:
        if shutil.which("make") and shutil.which("cc"):
            step = await self._run(W2, "build", "sh", "-c", "make turbine && ./turbine")
            self._check("the C program is built and runs", outcome(step.run) == "ok" and b"~~~" in step.shown["stdout"])
        step = await self._run(W2, "grind", sys.executable, "grind.py", "grain.txt", "out", str(LONG_LINE_BYTES))
        self._check("the worker has the file that was sent", step.said("grain") == grain)
        longest = max(step.shown["stdout"].split(b"\n"), key=len)
        whole = len(longest) == LONG_LINE_BYTES and sha256(longest).hexdigest() == step.said("line")
        self._check(f"a line of {LONG_LINE_BYTES:,} bytes arrives whole", whole)
        self._check("the progress bar's 24 returns are kept", step.shown["stdout"].count(b"\r") == 25)
        await self._fetch(step.said("flour"))
        step = await self._run(W2, "soak", sys.executable, "soak.py", stop_at=_STOP_AT)
        self._check("the interrupted step says so", step.run.reason == "interrupted")
        self._check("no process of it is left", _is_gone(step.said("child")))

    async def _fetch(self, flour: str) -> None:
        """The tree that `grind` has made comes up."""
        target = self._scratch / "out"
        async with self._api.get({"worker": W2, "path": "project/out", "kind": "tree"}) as response:
            await save_tree(response.aiter_raw(), target)
        found = await trio.to_thread.run_sync(tree_digest, target)
        self._screen.fact(W2, f"↑ project/out: a directory of 24 files, sha256 {found[:16]}…")
        self._check("the directory that came up is the one that was ground", found == flour != "")

    async def _put(self, worker: str, source: Path, path: str, kind: str) -> None:
        pieces = tree_pieces(source) if kind == "tree" else file_pieces(source)
        async with aclosing(pieces):
            answer = await self._api.put({"worker": worker, "path": path, "kind": kind}, pieces)
        self._check(f"{path} is sent to {worker}", not answer.get("error") and not answer.get("rc"))

    async def _run(self, worker: str, name: str, *command: str, stop_at: bytes | None = None) -> Step:
        """One command, live. With `stop_at` it is interrupted when its output has come to those bytes."""
        self._screen.begin(worker, name)
        args: dict[str, Json] = {"command": list(command), "workdir": "project", "logEnviron": False, "sigtermTime": 5}
        run = await self._api.start(worker, None, "shell", args)
        shown = {"stdout": bytearray(), "stderr": bytearray()}
        views = {channel: LineView() for channel in shown}
        async with self._api.log(run.id, follow=True) as batches:
            async for batch in batches:
                for record in batch.records():
                    if record.channel in shown:
                        shown[record.channel] += record
                        self._show(worker, record.channel, views[record.channel], record.data)
                if stop_at is not None and stop_at in shown["stdout"]:
                    self._screen.partial(worker, "interrupting…")
                    await self._api.stop(run.id, "the demo has seen enough")
                    stop_at = None
        for channel, view in views.items():
            for line in view.receive_eof():
                self._screen.line(worker, channel, line)
        run = await self._api.wait(run.id)
        self._screen.end(worker, outcome(run), f"{outcome(run)} after {seconds(run.elapsed)}")
        step = Step(name=name, run=run, shown={channel: bytes(data) for channel, data in shown.items()})
        self.steps.append(step)
        return step

    def _show(self, worker: str, channel: str, view: LineView, data: bytes) -> None:
        for line in view.receive_data(data):
            self._screen.line(worker, channel, line)
        self._screen.partial(worker, view.partial)

    async def _compare(self, step: Step) -> None:
        """What is kept must be what was shown."""
        kept = {"stdout": bytearray(), "stderr": bytearray()}
        async with self._api.log(step.run.id, follow=False) as batches:
            async for batch in batches:
                for record in batch.records():
                    if record.channel in kept:
                        kept[record.channel] += record
        same = all(kept[channel] == step.shown[channel] for channel in kept)
        self._check(f"{step.name}: what is kept is what was shown", same)

    def _check(self, sentence: str, holds: bool) -> None:
        self.checks.append((sentence, holds))


def _is_gone(pid: str) -> bool:
    """Whether there is no such process, or only what is left of it for its parent to look at."""
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return fields[0] == "Z"
