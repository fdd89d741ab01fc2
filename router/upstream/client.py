"""Calls a model's API. The only file that knows which HTTP client does it.

Nothing here reads a proxy from the environment, follows a redirect or keeps a cookie: a prompt goes to the
configured address and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from router.errors import UpstreamConnect, UpstreamProtocol, UpstreamTimeout, UpstreamTTFTTimeout
from router.settings import ModelSettings, Replica, Secret
from router.upstream.http1 import BrokenResponse, ConnectFailed, Connection, Origin, Pool
from router.upstream.retry import pause_s

MAX_BODY_BYTES = 8_000_000

# What of a client's request a model may see: nothing that identifies or authenticates the client to us.
FORWARDED_REQUEST_HEADERS = frozenset(
    [b"accept", b"idempotency-key", b"openai-beta", b"traceparent", b"tracestate", b"user-agent"]
)

# What of a model's answer stays behind: what belongs to its connection, to its domain, or is ours to say.
_WITHHELD_RESPONSE_HEADERS = frozenset(
    [
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-origin",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"alt-svc",
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"location",
        b"openai-organization",
        b"openai-project",
        b"proxy-authenticate",
        b"proxy-connection",
        b"server",
        b"set-cookie",
        b"strict-transport-security",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"www-authenticate",
        b"x-chosen-classifier",
    ]
)

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one path of a server's API is, and what of a request to it never changes."""

    origin: Origin
    api_key: Secret | None
    start: bytes = field(repr=False)  # the request line and our own headers, up to content-length's value

    @classmethod
    def of(cls, replica: Replica, path: str) -> Target:
        """Return the target for `replica.api_base + path`."""
        url = urlsplit(replica.api_base + path)
        lines = [
            f"POST {url.path} HTTP/1.1",
            f"host: {url.netloc}",
            "content-type: application/json",
            "accept-encoding: identity",  # we read usage from the body, and pass the body on as it is
        ]
        if replica.api_key is not None:
            lines.append(f"authorization: Bearer {replica.api_key.reveal()}")
        return cls(
            Origin.of(replica.api_base), replica.api_key, "\r\n".join([*lines, "content-length: "]).encode("ascii")
        )

    def request(self, body: bytes, headers: Headers) -> bytes:
        """Return the whole request; of `headers` only those go along that a model may see."""
        parts = [self.start, b"%d\r\n" % len(body)]
        for name, value in headers:
            if name in FORWARDED_REQUEST_HEADERS:
                parts += (name, b": ", value, b"\r\n")
        return b"".join([*parts, b"\r\n", body])


class UpstreamResponse:
    """A model's answer whose body is still to come; every read is under the model's timeouts. `release` it."""

    __slots__ = (
        "_begun",
        "_connection",
        "_first_byte_by",
        "_target",
        "headers",
        "is_event_stream",
        "model",
        "pause_s",
        "status",
    )

    def __init__(self, model: ModelSettings, target: Target, connection: Connection, first_byte_by: float) -> None:
        self.model = model
        self._target = target
        self.status = connection.status
        self.headers, self.is_event_stream = _safe_headers(connection.headers)
        # What a refusal's Retry-After asks for.
        self.pause_s = pause_s(connection.headers) if connection.status >= 400 else None
        self._connection = connection
        self._first_byte_by = first_byte_by  # by the event loop's clock
        self._begun = False

    async def body(self) -> bytes:
        """Return the whole body. UpstreamProtocol when it is over `MAX_BODY_BYTES` or ends too early."""
        parts, size = [], 0
        while part := await self.part():
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise UpstreamProtocol(f"Model '{self.model.name}' answered with more than {MAX_BODY_BYTES:,} bytes.")
            parts.append(part)
            if self._connection.ended:
                break
        return b"".join(parts)

    async def error(self) -> bytes:
        """Return the whole body of a refusal without our key, which some servers repeat in it."""
        body, key = await self.body(), self._target.api_key
        return body if key is None else body.replace(key.reveal().encode(), b"[REDACTED]")

    async def part(self) -> bytes:
        """Return what has arrived of the body, in whatever pieces the network delivers, b"" at its end.

        Raises UpstreamTTFTTimeout, UpstreamTimeout when it falls silent later, or UpstreamProtocol.
        """
        connection, idle_s = self._connection, self.model.timeouts.idle_s
        try:
            part = await connection.read(connection.now() + idle_s if self._begun else self._first_byte_by)
        except TimeoutError:
            if not self._begun:
                raise UpstreamTTFTTimeout(f"Model '{self.model.name}' gave no first byte in time.") from None
            raise UpstreamTimeout(f"Model '{self.model.name}' was silent for longer than {idle_s:g} s.") from None
        except BrokenResponse:
            raise UpstreamProtocol(f"Model '{self.model.name}' broke off within its answer.") from None
        self._begun = True
        return part

    def release(self) -> None:
        """Be done with it: before its end this closes the connection, and the model stops working for nobody."""
        self._connection.release()


class UpstreamClient:
    """One connection pool for all models. Use it as an async context manager."""

    _now: Callable[[], float]  # the clock that deadlines are in

    def __init__(self) -> None:
        self._pool = Pool()

    async def __aenter__(self) -> UpstreamClient:
        self._now = asyncio.get_running_loop().time
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def post(self, model: ModelSettings, target: Target, body: bytes, headers: Headers) -> UpstreamResponse:
        """Send `body` to one of the model's servers; return the response once its headers are here.

        Raises UpstreamConnect, UpstreamTTFTTimeout or UpstreamProtocol.
        """
        first_byte_by = self._now() + model.timeouts.first_byte_s
        connection = self._pool.spare(target.origin) or await self._connect(model, target.origin)
        try:
            connection.send(target.request(body, headers))
            await connection.head(first_byte_by)
            if 300 <= connection.status < 400:  # a client would follow it, with the prompt, to where nobody allowed
                raise UpstreamProtocol(f"Model '{model.name}' answered with a redirect, which is not followed.")
            return UpstreamResponse(model, target, connection, first_byte_by)
        except BaseException as error:  # cancelled while waiting, too: nobody will release it later
            connection.release()
            if isinstance(error, TimeoutError):
                raise UpstreamTTFTTimeout(f"Model '{model.name}' gave no first byte in time.") from None
            if isinstance(error, BrokenResponse):
                raise UpstreamProtocol(f"Model '{model.name}' broke off before it answered.") from None
            raise

    async def _connect(self, model: ModelSettings, origin: Origin) -> Connection:
        limits = model.timeouts
        try:
            return await self._pool.connect(origin, limits.connect_s)
        except TimeoutError:
            raise UpstreamConnect(f"Model '{model.name}': no connection within {limits.connect_s:g} s.") from None
        except ConnectFailed as why:
            raise UpstreamConnect(f"Model '{model.name}' cannot be reached: {why}.") from None


def _safe_headers(headers: Headers) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Return the answer's headers for the client, and whether they announce an event stream.

    The model's own x-request-id becomes x-upstream-request-id.
    """
    safe, is_event_stream = [], False
    for name, value in headers:
        if name in _WITHHELD_RESPONSE_HEADERS:
            if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):  # it names others like itself
                named = {name, *(other.strip().lower() for other in value.split(b","))}
                return _safe_headers([header for header in headers if header[0] not in named])
        elif name == b"x-request-id":
            safe.append((b"x-upstream-request-id", value))
        elif not name.startswith(b"x-router-"):
            safe.append((name, value))
            if name == b"content-type":
                is_event_stream = value.partition(b";")[0].strip().lower() == b"text/event-stream"
    return safe, is_event_stream
