"""TLS in pieces that are worth a turn of the loop.

OpenSSL hands out a record at a time, of at most 16 KiB. Each by itself would wake a task and go through all that
handles what was received: that was more than half of what a flood over TLS cost a master.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from typing_extensions import Buffer

REFILL_BYTES = 256 * 1024


def tls_listener(listener: trio.abc.Listener[trio.SocketStream], context: ssl.SSLContext) -> trio.SSLListener[Wide]:
    """Where TLS is spoken by who connects there."""
    _read_all_records(context)
    return trio.SSLListener(_WideListener(listener), context, https_compatible=True)


def tls_client(stream: trio.SocketStream, context: ssl.SSLContext, host: str) -> trio.SSLStream[Wide]:
    """TLS over a stream. The handshake is yet to be made."""
    _read_all_records(context)
    return trio.SSLStream(Wide(stream), context, server_hostname=host, https_compatible=True)


def below_tls(stream: trio.abc.Stream) -> trio.abc.Stream:
    """What a stream of ours goes over; itself, if it is not TLS."""
    if isinstance(stream, trio.SSLStream):
        below = stream.transport_stream
        return below.stream if isinstance(below, Wide) else below
    return stream


def listener_below_tls(listener: trio.abc.Listener[trio.abc.Stream]) -> trio.abc.Listener[trio.abc.Stream]:
    """The same of a listener."""
    if isinstance(listener, trio.SSLListener) and isinstance(listener.transport_listener, _WideListener):
        return listener.transport_listener.listener
    return listener


def _read_all_records(context: ssl.SSLContext) -> None:
    # Who has put a class of their own there wants that.
    if context.sslobject_class is ssl.SSLObject:
        context.sslobject_class = AllRecords


class AllRecords(ssl.SSLObject):
    """As its base, but `read` gives all that is there, up to what is asked for."""

    _error: ssl.SSLError | None = None

    def read(self, len: int = 1024, buffer: Buffer | None = None) -> bytes:  # noqa: A002 - the name it has
        """At least what its base gives. What goes wrong behind that is raised by the next call."""
        if buffer is not None:
            return super().read(len, buffer)
        if self._error is not None:
            raise self._error
        part = super().read(len)
        parts, left = bytearray(part), len
        while part and (left := left - memoryview(part).nbytes) > 0:
            try:
                part = super().read(left)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._error = error
                break
            parts += part
        return bytes(parts)


@final
class Wide(trio.abc.Stream):
    """A stream that gives more at once to who does not say how much: `SSLStream`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(REFILL_BYTES if max_bytes is None else max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


@final
class _WideListener(trio.abc.Listener[Wide]):
    def __init__(self, listener: trio.abc.Listener[trio.SocketStream]) -> None:
        self.listener = listener

    async def accept(self) -> Wide:
        return Wide(await self.listener.accept())

    async def aclose(self) -> None:
        await self.listener.aclose()
