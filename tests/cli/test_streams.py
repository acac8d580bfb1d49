"""Standard streams as a daemon finds them."""

from __future__ import annotations

import os
import threading

import pytest

from tailrace.cli.streams import write_at_once


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_a_reader_that_stalls_does_not_stall_a_daemon(pipe):
    _, writing = pipe
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    writer = threading.Thread(target=write_at_once, args=(writing, bytes(10_000)), daemon=True)
    writer.start()
    writer.join(10)
    assert not writer.is_alive()


def test_what_there_is_room_for_is_written_whole(pipe):
    reading, writing = pipe
    write_at_once(writing, bytes(10_000))
    assert os.read(reading, 20_000) == bytes(10_000)


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    write_at_once(writing, b"line")
    os.close(writing)
