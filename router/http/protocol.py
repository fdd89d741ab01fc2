"""HTTP/1.1 as uvicorn speaks it, with what it lacks: limits on a request's head, and errors in OpenAI's shape.

What is refused here never became a request: it has no policy, no model and no outcome.
"""

from __future__ import annotations

import asyncio
import os
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.errors import ClientError, HeadTimeout, HeadTooLarge, MalformedRequest
from router.http.asgi import ON_DISCONNECT, Scope

HEAD_TIMEOUT_S = 10.0
MAX_HEAD_BYTES = 65_536

_STATUS_LINES = {
    400: b"HTTP/1.1 400 Bad Request",
    408: b"HTTP/1.1 408 Request Timeout",
    431: b"HTTP/1.1 431 Request Header Fields Too Large",
}


class HTTPProtocol(HttpToolsProtocol):
    """One connection. A head that is late, endless or malformed is refused, and the connection closes."""

    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give a client that only connects as long as one that has been answered."""
        super().connection_made(transport)  # type: ignore[arg-type] # asyncio's own signature is wider
        self._timer = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and let the request that it carried know."""
        self._leave_head()
        super().connection_lost(exc)
        cycle = self.cycle
        if cycle is not None and cycle.disconnected:
            client_gone = cast(Scope, cycle.scope).get(ON_DISCONNECT)
            if client_gone is not None:
                client_gone()

    def data_received(self, data: bytes) -> None:
        """Read on, but no head without an end."""
        super().data_received(data)
        if self._in_head:  # a head that came whole, as nearly all do, needs no timer
            if self._head_bytes == 0:
                late = HeadTimeout(f"The request's head did not arrive within {HEAD_TIMEOUT_S:g} s.")
                self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._refuse, late)
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge(f"The request's head is over the limit of {MAX_HEAD_BYTES:,} bytes."))

    def on_message_begin(self) -> None:
        """Note a request's first byte; the rest of its head must follow in time."""
        super().on_message_begin()
        self._leave_head()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Hand over: what follows is the application's to limit."""
        self._leave_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(MalformedRequest(msg))

    def _leave_head(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: ClientError) -> None:
        """Close the connection, and say why where that cannot be taken for the answer to an earlier request."""
        cycle = self.cycle
        earlier_is_over = cycle is None or cycle.response_complete
        its_own_body = cycle is not None and not (self._in_head or self.pipeline or cycle.response_started)
        self._leave_head()
        if earlier_is_over or its_own_body:
            self.transport.write(_answer(error))
        self.transport.close()


def _answer(error: ClientError) -> bytes:
    body = error.body()
    head = (
        _STATUS_LINES[error.status],
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + os.urandom(16).hex().encode(),
        b"connection: close",
    )
    return b"\r\n".join(head) + b"\r\n\r\n" + body
