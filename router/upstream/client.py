"""Calls a model's API. The only file that knows which HTTP client does it.

Nothing here reads a proxy from the environment, follows a redirect or keeps a cookie: a prompt goes to the
configured address and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from router.errors import UpstreamConnect, UpstreamError, UpstreamProtocol, UpstreamTimeout, UpstreamTTFTTimeout
from router.settings import ModelSettings

MAX_BODY_BYTES = 8_000_000

# What of a client's request a model may see: nothing that identifies or authenticates the client to us.
FORWARDED_REQUEST_HEADERS = frozenset(
    [b"accept", b"idempotency-key", b"openai-beta", b"traceparent", b"tracestate", b"user-agent"]
)

# What of a model's answer stays behind: what belongs to its connection, to its domain, or is ours to say.
_WITHHELD_RESPONSE_HEADERS = frozenset(
    [
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        "alt-svc",
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "location",
        "openai-organization",
        "openai-project",
        "proxy-authenticate",
        "proxy-connection",
        "server",
        "set-cookie",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
        "x-chosen-classifier",
    ]
)

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """A model's answer whose body is still to come; every read is under the model's timeouts."""

    status: int
    headers: list[tuple[bytes, bytes]]
    is_event_stream: bool
    model: ModelSettings
    _response: aiohttp.ClientResponse
    _first_byte_by: float  # by the event loop's clock

    async def body(self) -> bytes:
        """Return the whole body. UpstreamProtocol when it is over `MAX_BODY_BYTES` or ends too early."""
        parts, size = [], 0
        async for part in self.parts():
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise UpstreamProtocol(f"Model '{self.model.name}' answered with more than {MAX_BODY_BYTES:,} bytes.")
            parts.append(part)
        return b"".join(parts)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, in whatever pieces the network delivers.

        Raises UpstreamTTFTTimeout, UpstreamTimeout when it falls silent later, or UpstreamProtocol.
        """
        limits, name = self.model.timeouts, self.model.name
        loop = asyncio.get_running_loop()
        begun = False
        try:
            while True:
                async with asyncio.timeout_at(loop.time() + limits.idle_s if begun else self._first_byte_by):
                    part = await self._response.content.readany()
                if not part:
                    return
                begun = True
                yield part
        except TimeoutError:
            if not begun:
                raise UpstreamTTFTTimeout(f"Model '{name}' gave no first byte in time.") from None
            raise UpstreamTimeout(f"Model '{name}' was silent for longer than {limits.idle_s:g} s.") from None
        except (aiohttp.ClientError, ConnectionError):
            raise UpstreamProtocol(f"Model '{name}' broke off within its answer.") from None


class UpstreamClient:
    """One connection pool for all models. Use it as an async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> UpstreamClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def post(
        self, model: ModelSettings, path: str, body: bytes, headers: Headers
    ) -> AsyncIterator[UpstreamResponse]:
        """Send `body` to `model.api_base + path` and give the response once its headers are here.

        Leaving the context early closes the connection, so that the model stops working for a client that has gone.
        Raises UpstreamConnect, UpstreamTTFTTimeout or UpstreamProtocol.
        """
        first_byte_by = asyncio.get_running_loop().time() + model.timeouts.first_byte_s
        response = await self._send(model, path, body, headers, first_byte_by)
        try:
            if 300 <= response.status < 400:  # a client would follow it, with the prompt, to where nobody allowed
                raise UpstreamProtocol(f"Model '{model.name}' answered with a redirect, which is not followed.")
            yield UpstreamResponse(
                status=response.status,
                headers=_safe_headers(response),
                is_event_stream=response.content_type == "text/event-stream",
                model=model,
                _response=response,
                _first_byte_by=first_byte_by,
            )
        finally:
            response.close()  # a whole answer has given its connection back already

    async def _send(
        self, model: ModelSettings, path: str, body: bytes, headers: Headers, first_byte_by: float
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise UpstreamError("The upstream client is not open.")
        limits = model.timeouts
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s)
        try:
            async with asyncio.timeout_at(first_byte_by):
                return await self._session.post(
                    model.api_base + path,
                    data=body,
                    headers=_request_headers(model, headers),
                    timeout=timeout,
                    allow_redirects=False,
                )
        except aiohttp.ConnectionTimeoutError:
            raise UpstreamConnect(f"Model '{model.name}': no connection within {limits.connect_s:g} s.") from None
        except TimeoutError:
            raise UpstreamTTFTTimeout(f"Model '{model.name}' gave no first byte in time.") from None
        except aiohttp.ClientConnectorError:
            raise UpstreamConnect(f"Model '{model.name}' cannot be reached.") from None
        except (aiohttp.ClientError, ConnectionError, ValueError):
            raise UpstreamProtocol(f"Model '{model.name}' broke off before it answered.") from None


def _request_headers(model: ModelSettings, headers: Headers) -> dict[str, str]:
    sent = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in FORWARDED_REQUEST_HEADERS
    }
    sent["content-type"] = "application/json"
    sent["accept-encoding"] = "identity"  # we read usage from the body, and pass the body on as it is
    if model.api_key is not None:
        sent["authorization"] = f"Bearer {model.api_key.reveal()}"
    return sent


def _safe_headers(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    """Return the answer's headers for the client; the model's own x-request-id becomes x-upstream-request-id."""
    own = {name.strip().lower() for name in response.headers.get("connection", "").split(",")}
    safe = []
    for name, value in response.raw_headers:
        lower = name.lower()
        text = lower.decode("latin-1")
        if text in _WITHHELD_RESPONSE_HEADERS or text in own or text.startswith("x-router-"):
            continue
        safe.append((b"x-upstream-request-id" if lower == b"x-request-id" else lower, value))
    return safe
