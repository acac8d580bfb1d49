"""A worker as a process: attach to a master, serve it, attach again; and end when told."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import attrs
import trio

from tailrace._core import __version__, keep_freed_memory
from tailrace.errors import LocalProtocolError, LoginRefused, TailraceError
from tailrace.limits import Limits
from tailrace.link.dial import dial
from tailrace.link.endpoint import Endpoint

from .background import background
from .config import Manners, read_config
from .identity import locked
from .worker import open_worker

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from tailrace.link.dial import WorkerConnection

    from .worker import Attachment, Worker

logger = logging.getLogger("tailrace.worker")

BACKOFF_FIRST_S = 0.2
BACKOFF_FACTOR = 1.5
BACKOFF_MAX_S = 20.0
"""A blink is over at once, and a farm is back within half a minute of its master, however long that was away. It is no
flood meanwhile: two hundred workers knock some ten times a second."""

REPLY_S = 0.2
"""After `remoteShutdown` the answer needs a moment to leave; the master may close first. Buildbot's number."""


@attrs.frozen(kw_only=True)
class WorkerState:
    """What a worker tells about its connection.

    Attributes:
        state: `connecting`, `attached`, `waiting` (for the next attempt), `draining`, `stopped`.
        endpoint: The master's, as it was given.
        reason: Why the worker is not attached, one line.
        retry_s: How long it waits.
    """

    state: Literal["connecting", "attached", "waiting", "draining", "stopped"]
    endpoint: str = ""
    reason: str = ""
    retry_s: float = 0.0

    def __str__(self) -> str:
        match self.state:
            case "waiting":
                return f"{self.endpoint}: {self.reason}; trying again in {self.retry_s:.0f} s"
            case "stopped" | "draining":
                return f"{self.state}: {self.reason}" if self.reason else self.state
            case _:
                return f"{self.state} {self.endpoint}"


async def run_worker(
    master: str | Sequence[str],
    name: str,
    secret: str,
    basedir: str | os.PathLike[str],
    *,
    reconnect: bool = True,
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    on_state: Callable[[WorkerState], None] | None = None,
) -> None:
    """Serves a master until it calls `remoteShutdown`.

    Args:
        master: An endpoint, or several, which are tried in turn; the worker is attached to one at a time.
        basedir: The worker's directory, made if it is missing; one process at a time may use it.
        reconnect: Try for ever, with growing pauses. False: raise what went wrong.
        on_state: Told of every attempt, and why it failed. Synchronous; must not raise.

    Raises:
        LocalProtocolError: Another process uses `basedir`.
        LoginRefused, ConnectionLost, OSError: With `reconnect=False`.

    Cancelled, it kills what runs; the master sees a lost connection.
    """
    target = _Target(
        endpoints=(master,) if isinstance(master, str) else tuple(master),
        name=name,
        secret=secret,
        tls=tls,
        limits=limits or Limits(),
        tell=on_state or _say_nothing,
    )
    async with _opened(basedir, target.limits, Manners()) as (worker, instance):
        await _Attacher(target, worker, instance).run(reconnect=reconnect)


async def serve_worker(
    directory: Path, *, drain_timeout: float = 60.0, announce: Callable[[WorkerState], None] | None = None
) -> None:
    """Serves as `tailrace.toml` in `directory` says, until `remoteShutdown` or a signal.

    SIGTERM and SIGINT: takes no more commands, and ends at once; what runs goes on under its supervisors, and the next
    worker in this directory goes on with it. Only commands that need this process (transfers, several children in a
    row, all of a master that cannot come back to them) are waited for, at most `drain_timeout` seconds, and then
    interrupted; a second signal interrupts them at once. SIGHUP: takes no more commands, and ends when none runs.

    Raises:
        LocalProtocolError: The settings are wrong, or another process serves here.
        OSError: A file cannot be read.
    """
    config = read_config(directory)
    target = _Target(
        endpoints=config.masters,
        name=config.name,
        secret=config.secret,
        tls=config.tls,
        limits=config.limits,
        tell=announce or _say_nothing,
    )
    async with (
        _opened(directory, config.limits, config.manners) as (worker, instance),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(_obey_signals, worker, drain_timeout, target.tell)
        await _Attacher(target, worker, instance).run(reconnect=True)
        nursery.cancel_scope.cancel()


def _some(_target: _Target, _attribute: attrs.Attribute[tuple[str, ...]], endpoints: tuple[str, ...]) -> None:
    if not endpoints:
        raise LocalProtocolError("a worker needs the endpoint of one master at least")
    for endpoint in endpoints:
        Endpoint.parse(endpoint)


@attrs.frozen(kw_only=True)
class _Target:
    endpoints: tuple[str, ...] = attrs.field(validator=_some)
    name: str
    secret: str = attrs.field(repr=False)
    tls: ssl.SSLContext | None
    limits: Limits
    tell: Callable[[WorkerState], None]


@asynccontextmanager
async def _opened(
    directory: str | os.PathLike[str], limits: Limits, manners: Manners
) -> AsyncIterator[tuple[Worker, str]]:
    keep_freed_memory()
    basedir = Path(os.path.abspath(directory))  # noqa: ASYNC240 - looks at nothing but the current directory
    with locked(basedir) as instance:
        async with open_worker(basedir, manners, limits) as worker:
            yield worker, instance


@final
class _Attacher:
    """Keeps a worker attached to one of its masters."""

    def __init__(self, target: _Target, worker: Worker, instance: str) -> None:
        self._target = target
        self._worker = worker
        self._instance = instance
        self._delay_s = BACKOFF_FIRST_S
        self._was_attached = False

    async def run(self, *, reconnect: bool) -> None:
        """Returns when the worker has stopped. Raises what ended the last attempt, unless `reconnect`."""
        for endpoint in itertools.cycle(self._target.endpoints):
            error = await self._attach(endpoint)
            if self._worker.stopped.is_set() or error is None:
                break
            last = self._was_attached or endpoint == self._target.endpoints[-1]
            if last and not reconnect:
                raise error
            await self._pause(endpoint, error, last=last)
        self._target.tell(WorkerState(state="stopped"))

    async def _attach(self, endpoint: str) -> TailraceError | OSError | None:
        """One connection, from the first attempt to its end. None: the worker stopped."""
        self._target.tell(WorkerState(state="connecting", endpoint=endpoint))
        self._was_attached = False
        attachment = self._worker.attachment()
        try:
            async with background() as nursery:
                nursery.start_soon(self._stop_dialing, nursery.cancel_scope)
                async with self._dialled(endpoint, attachment) as connection:
                    self._delay_s, self._was_attached = BACKOFF_FIRST_S, True
                    self._target.tell(WorkerState(state="attached", endpoint=endpoint))
                    return await self._serve(connection)
        except (OSError, TailraceError) as error:
            return error
        finally:
            await attachment.lost("the connection to the master was lost")
        return None

    def _dialled(self, endpoint: str, attachment: Attachment) -> AbstractAsyncContextManager[WorkerConnection]:
        return dial(
            endpoint,
            name=self._target.name,
            secret=self._target.secret,
            instance=self._instance,
            handler=attachment,
            tls=self._target.tls,
            limits=self._target.limits,
            software=f"tailrace {__version__}",
            holdings=self._worker.holdings,
        )

    async def _stop_dialing(self, scope: trio.CancelScope) -> None:
        """A worker that is told to stop does not wait for a master that does not answer."""
        await self._worker.stopped.wait()
        if not self._was_attached:
            scope.cancel()

    async def _serve(self, connection: WorkerConnection) -> TailraceError | None:
        """Until the connection ends, or the worker stops."""
        why: TailraceError | None = None

        async def watch() -> None:
            nonlocal why
            why = await connection.wait_closed()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            self._worker.ask_shutdown = partial(self._ask_shutdown, connection)
            try:
                await self._worker.stopped.wait()
            finally:
                self._worker.ask_shutdown = None
            if self._worker.detached:
                connection.loseConnection("away")
            else:
                await self._worker.interrupt_all("the worker stops")
                with trio.move_on_after(REPLY_S):
                    await connection.wait_closed()
                connection.loseConnection("shutdown")
            nursery.cancel_scope.cancel()
        return why

    async def _ask_shutdown(self, connection: WorkerConnection) -> None:
        """Until the master, asked for it, has ended us, or is lost. At once if it cannot be asked."""
        try:
            if await connection.askShutdown():
                await connection.wait_closed()
        except TailraceError as error:
            logger.info("the master was not asked for a shutdown: %s", error)

    async def _pause(self, endpoint: str, error: TailraceError | OSError, *, last: bool) -> None:
        """Before the next attempt. No pause while there are others to try; longer from round to round."""
        pause_s = random.uniform(self._delay_s / 2, self._delay_s) if last else 0.0
        if last:
            self._delay_s = min(BACKOFF_MAX_S, self._delay_s * BACKOFF_FACTOR)
        reason = _why(error)
        logger.warning("%s: %s", endpoint, reason)
        self._target.tell(WorkerState(state="waiting", endpoint=endpoint, reason=reason, retry_s=pause_s))
        with trio.move_on_after(pause_s):
            await self._worker.stopped.wait()


async def _obey_signals(
    worker: Worker,
    drain_timeout_s: float,
    tell: Callable[[WorkerState], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async with trio.open_nursery() as nursery:
            urgent = 0
            async for number in signals:
                hangup = number == signal.SIGHUP
                urgent += not hangup
                timeout_s = None if hangup else drain_timeout_s if urgent == 1 else 0.0
                reason = f"{signal.Signals(number).name}, {worker.commands} commands run"
                tell(WorkerState(state="draining", reason=reason))
                if timeout_s is None:
                    nursery.start_soon(worker.drain)
                else:
                    nursery.start_soon(worker.detach, timeout_s)


def _why(error: TailraceError | OSError) -> str:
    """One line for people, with what they can do where that is known."""
    if isinstance(error, LoginRefused) and error.reason == "credentials":
        return f"{error}; check the worker's name and its secret"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)


def _say_nothing(_state: WorkerState) -> None:
    pass
