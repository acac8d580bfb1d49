"""Transports in memory that can be cut: at once, or when so many bytes have gone one way."""

from __future__ import annotations

import trio
import trio.testing


class Cuttable(trio.abc.Stream):
    """One end of a wire. What is beyond the budget does not go through, and the wire is cut for both ends."""

    def __init__(self, stream, wire):
        self._stream = stream
        self._wire = wire
        self.budget = None

    async def send_all(self, data):
        if self._wire.is_cut:
            raise trio.BrokenResourceError("cut")
        if self.budget is not None:
            head = bytes(data[: self.budget])
            self.budget -= len(head)
            if len(head) < len(data):
                await self._stream.send_all(head)
                self._wire.cut()
                raise trio.BrokenResourceError("cut")
        await self._stream.send_all(data)
        self._wire.sent += len(data)

    async def wait_send_all_might_not_block(self):
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        if self._wire.is_cut:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("cut")
        return await self._stream.receive_some(max_bytes)

    async def aclose(self):
        await self._stream.aclose()


class Wire:
    """Two ends, `master` and `worker`, and what was sent over both."""

    def __init__(self):
        ours, theirs = trio.testing.memory_stream_pair()
        self.is_cut = False
        self.sent = 0
        self.master = Cuttable(ours, self)
        self.worker = Cuttable(theirs, self)
        self._streams = ours, theirs

    def cut(self):
        """Nothing goes through any more, and both ends notice. What is on its way is lost."""
        self.is_cut = True
        for stream in self._streams:
            stream.send_stream.close()
            stream.receive_stream.close()
