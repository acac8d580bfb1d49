"""The master of a crowd, as a process of its own: `python crowd_master.py tailrace|bare WORKERS`.

It says `listening ENDPOINT`; then each line of stdin is an order, a JSON object, and is answered by one. `tailrace` has
a `Listener` and takes everyone; `bare` is what no master in trio can go below: for each connection one task that reads
and one that waits for something to write.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

import tailrace
from farm import Counter

CALLS_EVERY_S = 0.01


class Master:
    """Takes everyone."""

    def __init__(self) -> None:
        self.taken: dict[str, tailrace.Connection] = {}

    async def newConnection(self, conn: tailrace.Connection, workerName: str) -> bool:
        await conn.remoteSetBuilderList([("bench", "bench")])
        self.taken[workerName] = conn
        return True

    async def obey(self, order: dict[str, Any]) -> object:
        """Stream from the first `workers`, `pieces` of `size` bytes each, and call those of `called` meanwhile."""
        conns = [self.taken[f"w{number}"] for number in range(order["workers"])]
        called = [self.taken[f"w{number}"] for number in order["called"]]
        counters = [Counter() for _ in conns]
        latencies: list[float] = []
        window: dict[str, float] = {}
        began, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_in_turn, called, latencies)
            if order["every_s"]:
                nursery.start_soon(watch, counters, order, window)
            async with trio.open_nursery() as commands:
                for number, (conn, counter) in enumerate(zip(conns, counters, strict=True)):
                    args = {key: order[key] for key in ("size", "pieces", "every_s")}
                    args["after_s"] = order["lead_s"] + order["every_s"] * number / len(conns)
                    commands.start_soon(self._command, conn, counter, f"{order['id']}-{number}", args)
            nursery.cancel_scope.cancel()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        assert all(counter.rc == 0 for counter in counters)
        return {
            "took": took,
            "cpu": cpu,
            "bytes": sum(counter.bytes for counter in counters),
            "updates": sum(counter.records for counter in counters),
            "latencies": sorted(latencies),
            "window": window,
        }

    async def _command(self, conn: tailrace.Connection, counter: Counter, command: str, args: object) -> None:
        await conn.remoteStartCommand(counter, "bench", command, "flood", args)
        await counter.done.wait()


async def watch(counters: list[Counter], order: dict[str, Any], window: dict[str, float]) -> None:
    """Bytes and CPU in the middle of it: without what it costs to start commands, and to end them."""
    seconds = order["every_s"] * order["pieces"]
    await trio.sleep(order["lead_s"] + 0.1 * seconds)
    before, cpu = sum(counter.bytes for counter in counters), time.process_time()
    await trio.sleep(0.8 * seconds)
    window["cpu"] = time.process_time() - cpu
    window["bytes"] = sum(counter.bytes for counter in counters) - before


async def call_in_turn(conns: list[tailrace.Connection], latencies: list[float]) -> None:
    """How long a control call takes, now to this worker and now to that."""
    number = 0
    while True:
        await trio.sleep(CALLS_EVERY_S)
        began = time.perf_counter()
        await conns[number % len(conns)].remotePrint("how are you?")
        latencies.append(time.perf_counter() - began)
        number += 1


async def tailrace_master(nursery: trio.Nursery, workers: int) -> tuple[str, Callable[..., Awaitable[object]]]:
    master = Master()
    listener = tailrace.Listener(master, "tailrace://127.0.0.1:0")
    for number in range(workers):
        listener.updateRegistration(f"w{number}", "s")
    await nursery.start(listener.serve)
    return listener.endpoint, master.obey


async def bare_master(nursery: trio.Nursery, workers: int) -> tuple[str, Callable[..., Awaitable[object]]]:
    async def serve(stream: trio.SocketStream) -> None:
        something_to_send = trio.Event()
        async with trio.open_nursery() as connection:
            connection.start_soon(something_to_send.wait)
            while await stream.receive_some(65536):
                pass
            connection.cancel_scope.cancel()

    async def obey(order: dict[str, Any]) -> object:
        raise ValueError("a bare master takes no orders")

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    return f"bare://127.0.0.1:{listener.socket.getsockname()[1]}", obey


async def main(kind: str, workers: int) -> None:
    async with trio.open_nursery() as nursery:
        make = {"tailrace": tailrace_master, "bare": bare_master}[kind]
        endpoint, obey = await make(nursery, workers)
        print("listening", endpoint, flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(await obey(json.loads(line))), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
