"""An HTTP/1.1 client for one thing: POST a body, read the answer as it arrives, give the connection back.

httptools parses. What is here is what a proxy's hot path needs of a client and no more: keep-alive connections, bytes
handed on as the network delivers them, deadlines without a timer for each read, back-pressure, and a connection that
is closed at once when its reader goes away.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from router.cork import Cork, CorkedTransport
from router.timer import LazyTimer

HeaderList = list[tuple[bytes, bytes]]

MAX_HEADER_BYTES = 65_536
IDLE_S = 30.0
"""An idle connection older than this is not used again: servers close theirs, most after a minute or later."""
_PAUSE_AT_BYTES = 65_536
_LENGTHS = (b"content-length", b"transfer-encoding")


class ConnectFailed(Exception):
    """No connection: the name did not resolve, nobody listens, or TLS was refused; says which."""


class BrokenResponse(Exception):
    """The peer broke off, or what it sent is not HTTP."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go: one scheme, host and port."""

    secure: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an http or https URL."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname or "", parts.port or (443 if secure else 80))


class Pool:
    """Keep-alive connections by origin. The last one given back is the next one taken, so that spares grow old."""

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self.cork = Cork()
        self._idle: dict[Origin, deque[Connection]] = {}
        self._idle_s = idle_s
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None

    def spare(self, origin: Origin) -> Connection | None:
        """Return an open connection that nobody uses, if there is one."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable and connection.now() - connection.idle_since < self._idle_s:
                return connection
            connection.close()
        return None

    async def connect(self, origin: Origin, connect_s: float) -> Connection:
        """Return a new connection. Raises ConnectFailed, or TimeoutError after `connect_s` seconds."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(connect_s):
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(self, origin, loop),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.secure else None,
                )
            except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
                raise ConnectFailed(_why(error)) from None
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer is complete, and let go of those that nobody needed for long."""
        idle = self._idle.setdefault(connection.origin, deque())
        while idle and connection.idle_since - idle[0].idle_since >= self._idle_s:
            idle.popleft().close()
        idle.append(connection)

    def opened(self, connection: Connection) -> None:
        """Know a connection until it is lost."""
        self._open.add(connection)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone; `spare` passes over one that was idle."""
        self._open.discard(connection)

    async def close(self) -> None:
        """Close every connection, used or not, and wait until they are gone."""
        for connection in list(self._open):
            connection.close()
        while self._open:  # noqa: ASYNC110 - the event loop tells of each on its next turn
            await asyncio.sleep(0)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


class Connection(asyncio.Protocol):
    """One connection with at most one exchange at a time: `send`, `head`, then `read` until it returns b""."""

    def __init__(self, pool: Pool, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.status = 0
        self.headers: HeaderList = []
        self._pool = pool
        self._loop = loop
        self._transport: CorkedTransport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._held = 0  # bytes in _parts
        self._paused = False
        self._header_bytes = 0
        self._head_here = self._complete = False
        self._busy = self._reusable = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer = LazyTimer(loop)

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._busy

    @property
    def ended(self) -> bool:
        """Whether the whole answer has been read."""
        return self._complete and not self._parts

    def now(self) -> float:
        """Return the moment by the clock that deadlines are in."""
        return self._loop.time()

    def send(self, request: bytes) -> None:
        """Send one request, head and body. Raises BrokenResponse when the connection was lost meanwhile."""
        if self._transport is None or self._transport.is_closing():
            raise BrokenResponse("closed")
        self.headers = []
        self._header_bytes = 0
        self._head_here = self._complete = self._reusable = False
        self._busy = True
        self._transport.write(request)

    async def head(self, by: float) -> None:
        """Wait for status and headers until the loop's time `by`. Raises TimeoutError or BrokenResponse."""
        while not self._head_here:
            await self._wait(by)

    async def read(self, by: float) -> bytes:
        """Return what has arrived of the body, b"" at its end. Raises TimeoutError or BrokenResponse."""
        while not self._parts:
            if self._complete:
                return b""
            await self._wait(by)
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return part

    def release(self) -> None:
        """End the exchange: the connection goes back when its answer was read to the end, else it is closed."""
        whole = self._complete and not self._parts and self._failure is None
        if whole and self._reusable and self._transport is not None:
            self._busy = False
            self.idle_since = self._loop.time()
            self._pool.give_back(self)
        else:
            self.close()

    def close(self) -> None:
        """Close at once; the peer sees that nobody reads any more."""
        self._timer.stop()
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = CorkedTransport(cast(asyncio.Transport, transport), self._pool.cork, self._loop)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if not self._busy:  # nobody asked: a farewell such as 408, or a peer that is out of step
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(BrokenResponse("not HTTP"))
            return
        if self._held > _PAUSE_AT_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._parts or self._complete or self._head_here:
            self._wake()

    def eof_received(self) -> bool:  # noqa: D102
        if self._head_here and not any(name in _LENGTHS for name, _ in self.headers):
            self._complete = True  # a body without a length ends with its connection
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._transport = None
        self._timer.stop()
        self._pool.lost(self)
        if not self._complete:
            self._fail(BrokenResponse("closed"))
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:  # noqa: D102
        if self._complete:  # nobody asked for a second answer: it must not be taken for the first
            raise BrokenResponse("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise BrokenResponse("headers too large")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:  # noqa: D102
        self.status = self._parser.get_status_code()
        if self.status < 200:  # an interim answer; the real one follows
            self.headers = []
            return
        self._head_here = True

    def on_body(self, body: bytes) -> None:  # noqa: D102
        self._parts.append(body)
        self._held += len(body)

    def on_message_complete(self) -> None:  # noqa: D102
        if self._head_here:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()  # the parser knows it only now

    # Waiting.

    async def _wait(self, by: float) -> None:
        if self._failure is not None:
            raise self._failure
        self._timer.set(by, self._give_up)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._failure is not None and not self._parts and not self._complete:
            raise self._failure

    def _give_up(self) -> None:
        if self._waiter is not None:
            self._fail(TimeoutError())

    def _fail(self, failure: Exception) -> None:
        if self._failure is None:
            self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _why(error: OSError | UnicodeError) -> str:
    match error:
        case socket.gaierror() | UnicodeError():
            return "its name does not resolve"
        case ConnectionRefusedError():
            return "the connection was refused"
        case ssl.SSLError():
            return f"TLS failed: {error.reason}"
    return type(error).__name__
