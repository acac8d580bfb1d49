"""One thread, one clock, one order of events: everything that a seed is to decide, and nothing that it does not."""

from __future__ import annotations

import contextlib
import random
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import trio
import trio._core._run as _run

from tailrace.link import compression
from tailrace.link.leisure import Leisure

# How long the disk and its threads take, at most: virtual seconds.
THREAD_S = 0.03
# How often it takes no time that anybody could notice.
AT_ONCE = 0.6


@contextmanager
def ordered(seed: int) -> Iterator[random.Random]:
    """In the block all chance comes from `seed`, threads do their work in place, and tasks are scheduled by chance."""
    rng = random.Random(seed)
    chance = random.Random(rng.random())

    async def run_sync(sync, *args, limiter=None, **_options):
        """`trio.to_thread.run_sync` without a thread: as long as it takes, and not cancelled meanwhile."""
        await trio.lowlevel.checkpoint()
        if chance.random() < AT_ONCE and (limiter is None or limiter.available_tokens):
            return sync(*args)
        with trio.CancelScope(shield=True):
            async with limiter or contextlib.nullcontext():
                await trio.sleep(chance.random() ** 2 * THREAD_S)
                return sync(*args)

    patches = [
        mock.patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        mock.patch.object(_run, "_r", random.Random(rng.random())),
        mock.patch.object(secrets, "token_bytes", chance.randbytes),
        mock.patch.object(trio.from_thread, "check_cancelled", return_value=None),
        # Who has time, and so what is compressed, is chance too; and little is looked at as if it were much.
        mock.patch.object(Leisure, "share", side_effect=chance.random),
        mock.patch.object(compression, "ARRIVED_BYTES", 1000),
        mock.patch.object(compression, "LOOK_S", 0.001),
    ]
    real = trio.to_thread.run_sync
    patches.append(mock.patch.object(trio.to_thread, "run_sync", run_sync))
    for module in [module for name, module in sys.modules.items() if name.startswith("tailrace")]:
        patches += [mock.patch.object(module, name, run_sync) for name, value in vars(module).items() if value is real]
    for patch in patches:
        patch.start()
    try:
        yield rng
    finally:
        for patch in patches:
            patch.stop()
