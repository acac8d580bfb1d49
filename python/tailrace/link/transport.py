"""Bytes between a dialect and its transport: as many at once as there are, and in a flood as many as are worth a turn.

To be woken costs more than what a wake-up brings. So in a flood, once a read has brought much, the next one waits for
more, or for a moment. First lines do not wait at all.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, final

import trio

from tailrace.link.compression import Compression
from tailrace.link.floodgate import Floodgate
from tailrace.link.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailrace.dialects.dialect import Dialect, Direct
    from tailrace.limits import Limits

RECEIVE_BYTES = 256 * 1024
DIRECT_BYTES = 1024 * 1024
SEND_BYTES = 256 * 1024
# A socket that takes all that it is given must not keep the other tasks waiting.
SEND_BYTES_TURN = 2 * 1024 * 1024
# What waits in the kernel is overtaken by nothing: an interrupt should not wait for megabytes that are not even sent.
# More may wait where it is gone within moments: to be woken to fill it up costs more than what goes in.
UNSENT_BYTES_MIN = 256 * 1024
UNSENT_BYTES_MAX = 1024 * 1024
UNSENT_S = 0.004
# How often that is looked at, in sends that had to wait.
UNSENT_LOOK = 32
# Where `struct tcp_info` has the rate at which bytes were delivered last, a second: eight bytes.
DELIVERY_RATE_AT = 160
# Read so much, and there is likely more.
GATHER_FROM_BYTES = 16 * 1024
# So much has gathered, and it is a flood: more than anyone reads.
FLOOD_FROM_BYTES = 64 * 1024
# Who brings less is read in rounds, with all others of that kind.
ROUND_BYTES = 96 * 1024


@final
class Transport:
    """One transport. Nothing else receives from it or sends to it."""

    def __init__(self, stream: trio.abc.Stream, dialect: Dialect, limits: Limits) -> None:
        self._stream = stream
        self._dialect = dialect
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._direct = dialect.direct if self._socket is not None else None
        self._tcp = self._socket if self._socket is not None and self._socket.family != socket.AF_UNIX else None
        self._unsent = 0
        self._waits = 0
        self._allow_unsent(UNSENT_BYTES_MIN)
        self._low_water = 1
        self._brought = 0
        self._in_flood = False
        self._compression = None if dialect.compresses is None else Compression(dialect.compresses, limits)
        self._gate = Floodgate.here()
        self._rounds = Rounds.here()
        self._is_sending = False

    async def receive(self, received: Callable[[], bool] | None = None) -> bool:
        """Hands on what comes next, at least a byte. False: the peer will send no more, and the dialect knows it.

        `received`: deals with what came, as the caller does when this returns, and says whether more may be received
        before that; `None`: somebody waits for an answer. Cancellation changes nothing.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the transport is of no more use.
        """
        gathers = 0 if received is None or self._brought < GATHER_FROM_BYTES else self._dialect.receive_gathers
        if self._socket is not None and self._direct is not None:
            self._brought = await self._receive_directly(self._socket, self._direct, gathers, received)
        else:
            self._brought = await self._receive(gathers)
        self._note_brought(self._brought)
        # What is read in rounds has its turns there.
        flood_from = FLOOD_FROM_BYTES if self._direct is None else ROUND_BYTES
        self._note_flood(gathers > 0 and self._brought >= flood_from)
        return self._brought > 0

    def hurry(self) -> None:
        """Somebody waits for an answer from now on: what is being received does not wait for the floods of others."""
        if self._brought >= GATHER_FROM_BYTES:
            self._gate.hurry(self)
            if self._socket is not None and self._brought < ROUND_BYTES:
                self._rounds.hurry(self._socket.fileno())

    @property
    def sends_at_once(self) -> bool:
        """`send_now` does mostly all that there is to do."""
        return self._direct is not None

    def send_now(self) -> bool:
        """Sends what the dialect has to send, as far as that can be done at once. False: `send` has to do the rest."""
        if self._direct is None or self._socket is None or self._is_sending:
            return False
        try:
            is_done = self._direct.send_to(self._socket.fileno(), SEND_BYTES_TURN)
        except OSError:
            return False  # as `send` will find too
        self._note_sent(is_full=not is_done)
        return is_done

    async def send(self, made_room: Callable[[], object]) -> None:
        """Sends what the dialect has to send. `made_room`: called when some of that is on its way, to say more.

        Cancelled: some of it was sent, and the transport is of no more use. Raises as `receive`.
        """
        if self._direct is not None and self._socket is not None:
            await self._send_directly(self._socket, self._direct, made_room)
            return
        while data := self._dialect.data_to_send(SEND_BYTES):
            # Streams hear of the room before it is sent: they refill meanwhile.
            made_room()
            self._note_sent(is_full=True)
            await self._stream.send_all(data)
            self._note_sent(is_full=False)

    async def aclose(self) -> None:
        """Says goodbye in the transport's own way. Closed whatever happens, also when cancelled."""
        self._note_flood(False)
        await self._stream.aclose()

    async def aclose_forcefully(self) -> None:
        """Closes it at once."""
        self._note_flood(False)
        await trio.aclose_forcefully(self._stream)

    def _note_flood(self, in_flood: bool) -> None:
        if in_flood != self._in_flood:
            self._in_flood = in_flood
            self._gate.note(self, in_flood=in_flood)

    def _note_brought(self, count: int) -> None:
        if self._compression is not None:
            self._compression.received(count)

    def _note_sent(self, *, is_full: bool) -> None:
        if self._compression is not None:
            self._compression.sent(is_full=is_full)

    async def _receive_directly(
        self, receiver: trio.socket.SocketType, direct: Direct, gathers: int, received: Callable[[], bool] | None
    ) -> int:
        try:
            if gathers and received is not None and self._brought < ROUND_BYTES:
                count = await self._receive_in_rounds(receiver, direct, received)
            else:
                await self._wait_readable(receiver, gathers)
                count = await self._receive_in_turn(receiver, direct, gathers) if gathers else None
            while count is None and (count := direct.receive_from(receiver.fileno(), DIRECT_BYTES)) is None:
                await self._wait_readable(receiver, 0)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        if not count:
            self._dialect.receive_eof()
        return count

    async def _receive_in_rounds(
        self, receiver: trio.socket.SocketType, direct: Direct, received: Callable[[], bool]
    ) -> int | None:
        """Receives for as long as what comes is moderate. How much came last; `None`: nothing yet."""
        self._set_low_water(receiver, 1)
        fd, count = receiver.fileno(), None

        def receive() -> bool:
            nonlocal count
            count = direct.receive_from(fd, ROUND_BYTES)
            if count is None:
                return True
            if not GATHER_FROM_BYTES <= count < ROUND_BYTES:
                return False
            self._note_brought(count)
            return received()

        await self._rounds.read(fd, receive)
        return count

    async def _receive_in_turn(self, receiver: trio.socket.SocketType, direct: Direct, gathers: int) -> int | None:
        if not self._gate.is_needed:
            return direct.receive_from(receiver.fileno(), max(gathers, DIRECT_BYTES))
        await self._gate.enter(self)
        try:
            count = direct.receive_from(receiver.fileno(), max(gathers, DIRECT_BYTES))
            # It is handled before the next one has its turn.
            await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._gate.leave()
        return count

    async def _receive(self, gathers: int) -> int:
        if self._socket is not None and (gathers or self._low_water > 1):
            await self._wait_readable(self._socket, gathers)
        data = await self._stream.receive_some(max(gathers, RECEIVE_BYTES))
        if data:
            self._dialect.receive_data(data)
        else:
            self._dialect.receive_eof()
        return len(data)

    async def _wait_readable(self, receiver: trio.socket.SocketType, gathers: int) -> None:
        """Waits until there is something; if it `gathers`, until there is so much, or for a moment."""
        self._set_low_water(receiver, max(gathers, 1))
        if gathers:
            traits = self._dialect.traits
            with trio.move_on_after(traits.flood_s if self._in_flood else traits.gather_s):
                await trio.lowlevel.wait_readable(receiver)
        else:
            await trio.lowlevel.wait_readable(receiver)

    def _set_low_water(self, receiver: trio.socket.SocketType, low_water: int) -> None:
        # The kernel makes room for as much, and wakes us all the same when the peer's window is closed.
        if low_water != self._low_water:
            self._low_water = low_water
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)

    async def _send_directly(
        self, sender: trio.socket.SocketType, direct: Direct, made_room: Callable[[], object]
    ) -> None:
        self._is_sending = True
        try:
            is_done = False
            while not is_done:
                is_done = direct.send_to(sender.fileno(), SEND_BYTES_TURN)
                self._note_sent(is_full=not is_done)
                made_room()
                if not is_done:
                    self._look_at_rate()
                    await trio.lowlevel.wait_writable(sender)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._is_sending = False

    def _look_at_rate(self) -> None:
        self._waits += 1
        if self._tcp is not None and self._waits % UNSENT_LOOK == 0:
            state = self._tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DELIVERY_RATE_AT + 8)
            rate = int.from_bytes(state[DELIVERY_RATE_AT:], sys.byteorder)
            is_fast = rate * UNSENT_S >= UNSENT_BYTES_MAX
            self._allow_unsent(UNSENT_BYTES_MAX if is_fast else UNSENT_BYTES_MIN)

    def _allow_unsent(self, count: int) -> None:
        if self._tcp is not None and count != self._unsent:
            self._unsent = count
            self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, count)
