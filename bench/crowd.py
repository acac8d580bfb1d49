"""Many workers in one process, each with a TCP connection of its own: `python crowd.py ENDPOINT FIRST COUNT`.

They log in, at most `AT_ONCE` at the same time, say `attached SECONDS`, and stay until stdin ends. What they run is
written by hand, with `callRemote`: a thousand daemons with their supervisors and children would leave nothing of a
small machine for the master that is measured. `flood` writes `pieces` pieces of `size` bytes, one every `every_s`
seconds, or as fast as it may.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

import trio

from tailrace.link.dial import dial
from tailrace.link.proxy import RemoteCommandProxy

AT_ONCE = 64
LINE = b"x" * 79 + b"\n"


class Handler:
    """A worker that accepts everything, and floods when it is told to."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def attached(self, master: str) -> None:
        pass

    async def print(self, message: str) -> None:
        pass

    async def getWorkerInfo(self) -> Mapping[str, object]:
        return {"encoding": "utf-8", "basedir": "/w", "version": "1"}

    async def setBuilderList(self, builders: list[tuple[str, str]]) -> Sequence[str]:
        return [name for name, _directory in builders]

    async def startBuild(self, builder: str) -> None:
        pass

    async def startCommand(
        self, builder: str, command: str, name: str, args: dict[str, object], proxy: RemoteCommandProxy
    ) -> None:
        self._nursery.start_soon(flood, proxy, args)

    async def interruptCommand(self, builder: str, command: str, why: str) -> None:
        pass

    async def shutdown(self) -> None:
        pass


async def flood(proxy: RemoteCommandProxy, args: dict[str, object]) -> None:
    piece = LINE * (int(args["size"]) // len(LINE))
    due = trio.current_time() + float(args["after_s"])
    for _ in range(int(args["pieces"])):
        if args["every_s"]:
            await trio.sleep_until(due)
            due += float(args["every_s"])
        await proxy.callRemote("update", {"stdout": piece})
    await proxy.callRemote("update", {"rc": 0})
    await proxy.callRemote("complete")


async def one(
    endpoint: str, number: int, slots: trio.Semaphore, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio.open_nursery() as commands:
        await slots.acquire()
        connecting = dial(
            endpoint, name=f"w{number}", secret="s", instance=f"instance-{number}", handler=Handler(commands)
        )
        async with connecting as connection:
            slots.release()
            task_status.started()
            await connection.wait_closed()


async def main(endpoint: str, first: int, count: int) -> None:
    slots = trio.Semaphore(AT_ONCE)
    async with trio.open_nursery() as nursery:
        began = time.perf_counter()
        async with trio.open_nursery() as starting:
            for number in range(first, first + count):
                starting.start_soon(nursery.start, one, endpoint, number, slots)
        print("attached", time.perf_counter() - began, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
