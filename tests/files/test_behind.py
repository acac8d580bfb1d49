"""A thread's work, a little behind who gives it."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio
import trio.testing

from tailrace.files.behind import Behind


@pytest.fixture
async def behind():
    behind = Behind(10)
    yield behind
    await behind.stop()


async def test_all_is_done_in_order_in_another_thread(behind):
    done, threads = [], set()

    def work(number):
        done.append(number)
        threads.add(threading.current_thread())

    for number in range(500):
        await behind.give(1, partial(work, number))
    await behind.wait()
    assert done == list(range(500))
    assert threading.main_thread() not in threads


async def test_who_gives_waits_while_too_much_is_behind(behind):
    gate, given = threading.Semaphore(0), []

    async def give():
        for number in range(6):
            await behind.give(5, gate.acquire)
            given.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert given == [0, 1]
        gate.release()
        with trio.fail_after(10):
            while len(given) < 3:
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert given == [0, 1, 2]
        gate.release(6)
    await behind.wait()


async def test_what_it_raises_is_raised_from_then_on_and_nothing_follows(behind):
    gate, done = threading.Event(), []

    def fail():
        gate.wait()
        raise OSError(28, "No space left on device")

    await behind.give(1, fail)
    await behind.give(1, partial(done.append, 1))
    gate.set()
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            await behind.wait()
    with pytest.raises(OSError, match="No space left"):
        await behind.give(1, partial(done.append, 2))
    assert done == []


async def test_nothing_more_is_done_when_it_was_stopped(behind):
    begun, gate, done = threading.Event(), threading.Event(), []

    def work(number):
        begun.set()
        gate.wait()
        done.append(number)

    for number in range(3):
        await behind.give(1, partial(work, number))
    await trio.to_thread.run_sync(begun.wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(behind.stop)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert done == [0]
    await behind.stop()


async def test_a_wait_that_is_cancelled_changes_nothing(behind):
    gate, done = threading.Event(), []

    def work():
        gate.wait()
        done.append(True)

    await behind.give(1, work)
    with trio.move_on_after(0.01):
        await behind.wait()
    with trio.move_on_after(0.01):
        await behind.give(100, partial(done.append, "more"))
    gate.set()
    await behind.wait()
    assert done == [True, "more"]


async def test_it_holds_no_token_of_the_threads_when_it_rests(behind):
    limiter = trio.to_thread.current_default_thread_limiter()
    before = limiter.borrowed_tokens
    for _ in range(3):
        await behind.give(1, int)
        await behind.wait()
        assert limiter.borrowed_tokens == before
