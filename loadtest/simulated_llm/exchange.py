"""One HTTP exchange over ASGI that notices when its client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client closed the connection before the answer was complete."""


class Exchange:
    """Reads one request body, then writes one answer, whole or in pieces."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._gone: asyncio.Task[None] | None = None

    async def read_body(self) -> bytes:
        """Return the whole request body.

        Raises `ClientGone`: the connection ended first.
        """
        body: bytes = b""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if not message.get("more_body", False):
                return body

    async def pause(self, seconds: float | None) -> None:
        """Wait (None: for ever); not at all when `seconds` is 0 or less.

        Raises `ClientGone`: the client went away meanwhile.
        """
        if seconds is not None and seconds <= 0:
            return
        if self._gone is None:
            self._gone = asyncio.create_task(self._disconnected())
        done, _ = await asyncio.wait((self._gone,), timeout=seconds)
        if done:
            raise ClientGone

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line and the headers."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send `data` in one write; without a `last` one the server closes the socket at the end."""
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def answer(self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole JSON answer."""
        length = (b"content-length", b"%d" % len(body))
        await self.start(status, [(b"content-type", b"application/json"), length, *headers])
        await self.write(body, last=True)

    def close(self) -> None:
        """Stop watching the client."""
        if self._gone is not None:
            self._gone.cancel()

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
