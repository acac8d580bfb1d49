"""Answers whose length nobody knows: bytes that flow as long as there are any, and as fast as the client takes them."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, final

import trio
from starlette.responses import Response

from tailrace.errors import TailraceError
from tailrace.master.passing import TransferAborted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.types import Receive, Scope, Send

logger = logging.getLogger("tailrace.web")


@final
class ByteStream(Response):
    """Sends `pieces` as they come. A client that goes away ends the generator.

    A piece that cannot be had breaks the connection off, so that the client does not take what it has for the whole.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes | memoryview],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        first: bytes | memoryview | None = None,  # a piece that was taken from `pieces` already
    ) -> None:
        self._pieces = pieces
        self._first = first
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Returns when all was sent or the client has gone. Cancelled: the connection breaks off."""
        async with aclosing(self._pieces), trio.open_nursery() as nursery:
            nursery.start_soon(_watch, receive, nursery.cancel_scope)
            await self._send(send)
            nursery.cancel_scope.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            if self._first is not None:
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (TailraceError, TransferAborted, OSError) as error:
            logger.warning("an answer was broken off: %s", error)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _watch(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
