"""How much a transport lets wait in the kernel."""

import socket
from types import SimpleNamespace

import pytest
import trio

from tailrace.limits import Limits
from tailrace.link import transport as module
from tailrace.link.transport import Transport

ZEROS = bytes(512 * 1024)


class Pours:
    """Sends without an end, as much as goes, so many bytes in all."""

    def __init__(self, count):
        self.left = count

    def send_to(self, fd, max_bytes):
        with socket.socket(fileno=socket.dup(fd)) as sender:
            while self.left > 0:
                try:
                    self.left -= sender.send(ZEROS, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return False
        return True


async def pour(count):
    """Through loopback, to who reads all; what may wait unsent in the end."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        sender = await trio.testing.open_stream_to_socket_listener(listener)
        receiver = await listener.accept()

        async def drain():
            async with receiver:
                while await receiver.receive_some(65536):
                    pass

        nursery.start_soon(drain)
        transport = Transport(sender, SimpleNamespace(direct=Pours(count), compresses=None), Limits())
        await transport.send(lambda: None)
        unsent = sender.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        await transport.aclose()
        return unsent


async def test_little_waits_in_the_kernel_at_first():
    assert await pour(1000) == module.UNSENT_BYTES_MIN


@pytest.mark.parametrize(("rate", "wanted"), [("fast", module.UNSENT_BYTES_MAX), ("slow", module.UNSENT_BYTES_MIN)])
async def test_more_waits_where_it_is_gone_within_moments(monkeypatch, rate, wanted):
    # Loopback is as fast as it is; what is called moments says whether that is fast.
    monkeypatch.setattr(module, "UNSENT_S", {"fast": 10.0, "slow": 1e-9}[rate])
    monkeypatch.setattr(module, "UNSENT_LOOK", 2)
    assert await pour(64 * 1024 * 1024) == wanted
