"""`tailrace run`: start a command, show its output as it comes, and exit as it did."""

from __future__ import annotations

import signal
from collections.abc import Sequence  # noqa: TC003  (cyclopts reads the annotations)
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, final

import trio
from cyclopts import Parameter

from .api import Json, RunInfo, open_api
from .ending import exit_code, trouble
from .failure import OUTPUT_CLOSED, SIGNALLED, USAGE, Failure, say
from .patience import Patient
from .settings import Told  # noqa: TC001  (cyclopts reads the annotations)
from .show import JsonShow, Show, StreamShow, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_SILENT_S = 3.0
"""After so long without an answer the user is told what is waited for."""

_START_PATIENCE_S = 5.0
"""How long a Ctrl-C waits to learn the id of a run that is just being started."""


async def run(
    *command: str,
    on: str | None = None,
    builder: str | None = None,
    workdir: str | None = None,
    env: Annotated[Sequence[str], Parameter(allow_leading_hyphen=True)] = (),
    timeout: float | None = None,
    max_time: float | None = None,
    detach: bool = False,
    no_wait: bool = False,
    told: Told,
) -> int:
    """Run a command on a worker: live output, then its exit code.

    What stands after `--` is passed on untouched: `tailrace run --on w1 -- make -j8`

    Ctrl-C interrupts the command on the worker and waits for its end; a second one leaves at once. Exit codes: the
    command's own; 128 + signal; 124 for a timeout; 130 after Ctrl-C; 125 when Tailrace itself failed or lost the run.

    Parameters
    ----------
    command
        The program and its arguments, after `--`. No shell is involved: `-- sh -c 'make && make test'`
    on
        The worker. Without it: the least busy one.
    builder
        Run in this builder's directory on the worker, instead of the worker's base directory.
    workdir
        The directory to run in, below that one. It is made if it is missing.
    env
        NAME=VALUE for the command's environment. May be given several times.
    timeout
        Seconds without any output after which it is ended.
    max_time
        Seconds in all after which it is ended.
    detach
        Print the run's id and leave it running.
    no_wait
        When the master goes away, give up at once, with exit code 125. Else it is waited for, as long as it takes, and
        the output goes on where it was.
    """
    if not command:
        raise Failure("no command was given", "put it after `--`, as in: tailrace run -- make -j8", code=USAGE)
    args: dict[str, Json] = {
        "command": list(command),
        "workdir": workdir or ".",
        "env": environment(env),
        "timeout": positive("--timeout", timeout),
        "maxTime": positive("--max-time", max_time),
        "sigtermTime": 5,
        "interruptSignal": "KILL",
        "logEnviron": False,
    }
    async with open_api(told) as api:
        if detach:
            started = await api.start(on, builder, "shell", args)
            print_json(started.row) if told.json else print(started.id, flush=True)
            return 0
        show = JsonShow() if told.json else StreamShow()
        return await _Attended(Patient(api, show.away, show.back, waits=not no_wait), show).go(
            lambda: api.start(on, builder, "shell", args)
        )


def environment(pairs: Sequence[str]) -> dict[str, Json]:
    """NAME=VALUE … as a dict."""
    found: dict[str, Json] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Failure(f"--env {pair}: that is no NAME=VALUE", "as in: --env CC=clang", code=USAGE)
        found[name] = value
    return found


def positive(option: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < 1e9:
        raise Failure(f"{option} {value:g}: seconds, more than none", "as in: --timeout 600", code=USAGE)
    return value


@final
class _Attended:
    """A run that somebody looks at: its output is shown, and a signal to us interrupts it on the worker."""

    def __init__(self, api: Patient, show: Show) -> None:
        self._api = api
        self._show = show
        self._run: RunInfo | None = None
        self._started = trio.Event()
        self._signalled: int | None = None
        self._ended: RunInfo | None = None

    async def go(self, start: Callable[[], Awaitable[RunInfo]]) -> int:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals, nursery)
            nursery.start_soon(self._tell_of_waiting)
            self._run = await start()
            self._started.set()
            try:
                await self._follow(self._run)
            except BrokenPipeError:
                await self._api.stop(self._run.id, "nobody reads its output any more")
                return OUTPUT_CLOSED
            finally:
                nursery.cancel_scope.cancel()
        return self._code()

    async def _tell_of_waiting(self) -> None:
        """A worker whose connection broke may come back: the start waits for it."""
        with trio.move_on_after(_SILENT_S):
            await self._started.wait()
        if not self._started.is_set() and not self._show.tells_the_end:
            say("the worker has not answered yet, waiting…")

    async def _follow(self, run: RunInfo) -> None:
        await self._show.begin(run)
        async with aclosing(self._api.log(run.id, follow=True)) as batches:
            await self._show.batches(batches)
        self._ended = await self._api.wait(run.id)
        await self._show.end(self._ended)

    def _code(self) -> int:
        if self._ended is not None and (line := trouble(self._ended)) and not self._show.tells_the_end:
            say(line)
        if self._signalled is not None:
            return SIGNALLED + self._signalled
        assert self._ended is not None
        return exit_code(self._ended)

    async def _watch_signals(
        self, nursery: trio.Nursery, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(*_heeded(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals:
            task_status.started()
            async for number in signals:
                if self._signalled is None:
                    self._signalled = number
                    nursery.start_soon(self._interrupt, nursery)
                else:
                    nursery.cancel_scope.cancel()

    async def _interrupt(self, nursery: trio.Nursery) -> None:
        """Ends the run on the worker; its last output and its end are then shown like any other's."""
        with trio.move_on_after(_START_PATIENCE_S):
            await self._started.wait()
        if self._run is None:
            nursery.cancel_scope.cancel()
            return
        say(f"interrupting run {self._run.id} on {self._run.worker}; once more leaves it at once")
        assert self._signalled is not None
        await self._api.stop(self._run.id, "Ctrl-C" if self._signalled == signal.SIGINT else "tailrace run was ended")


def _heeded(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those that were not ignored when we were started, as `nohup` and a shell's `&` do."""
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
