from __future__ import annotations

import trio

from tailrace.worker.commands.command import Outcome
from tailrace.worker.journal import MemoryOutput
from tailrace.worker.running import PlainJob, Running


class Quick:
    async def run(self, out):
        del out
        await trio.lowlevel.checkpoint()
        return Outcome(rc=0)


class Job(PlainJob):
    """Tells that it is the last thing of its command that ends, in the turn of the loop in which it does."""

    def __init__(self):
        super().__init__(Quick(), MemoryOutput(), interrupted_rc=-1)
        self.over = trio.Event()

    async def work(self):
        await super().work()
        try:
            await trio.sleep_forever()
        finally:
            self.over.set()


async def send(sent):
    while not sent.journal.ended:
        await sent.wait_grown(sent.journal.end)


async def test_an_interrupt_in_the_moment_of_the_end_is_harmless():
    # In which order trio runs two tasks of one turn is left to chance: of forty, some meet the moment.
    for _ in range(40):
        job = Job()
        running = Running(job, "w quick", send)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.run)
                await job.over.wait()
                await running.interrupt("the worker stops")
