"""Passes an upstream's answer on: a whole one as it is, a stream by whole events, one write for each part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from router.errors import UpstreamError, UpstreamProtocol
from router.http.asgi import Send, send_whole
from router.http.exchange import Exchange
from router.upstream.client import UpstreamResponse
from router.upstream.refusal import refusal
from router.upstream.sse import EventSplitter, read_chunk, read_usage

Begun = Callable[[], None]


def relay(exchange: Exchange, response: UpstreamResponse, send: Send, begun: Begun) -> Awaitable[None]:
    """Pass the answer on and note its outcome and usage; `begun` is called when a stream's first event leaves.

    Raises UpstreamError as long as the client can still be told by a status, and while a stream is open;
    UpstreamRefused is the upstream's own error, of which nothing has been passed on.
    """
    if response.status >= 400:
        return _refuse(exchange, response)
    if response.is_event_stream:
        return _relay_stream(exchange, response, send, begun)
    return _relay_whole(exchange, response, send)


async def _refuse(exchange: Exchange, response: UpstreamResponse) -> None:
    body = await response.error()
    exchange.heard_from_upstream()
    raise refusal(response.model.name, response.status, response.headers, body, response.pause_s)


async def _relay_whole(exchange: Exchange, response: UpstreamResponse, send: Send) -> None:
    """Pass on an answer that comes in one piece, byte for byte."""
    body = await response.body()
    exchange.heard_from_upstream()
    exchange.usage = read_usage(body)
    headers = [*response.headers, *exchange.headers()]
    exchange.answered = True
    await send_whole(send, response.status, headers, body)
    exchange.outcome = "ok"


async def _relay_stream(exchange: Exchange, response: UpstreamResponse, send: Send, begun: Begun) -> None:
    """Pass on an event stream, whole events only, one write per part; an event that only we asked for stays behind.

    Headers leave with the first event, so that a stream which begins with an error can still become an error.
    """
    splitter = EventSplitter()
    while part := await response.part():
        first = not exchange.answered
        if first:
            exchange.heard_from_upstream()
        await _pass_on(exchange, response, splitter.feed(part), send)
        if first and exchange.answered:
            begun()
    await _pass_on(exchange, response, splitter.end(), send)
    if not (exchange.finished or exchange.broken):  # clients would take a part for the whole
        raise UpstreamProtocol(f"Model '{response.model.name}' ended its stream before its answer was complete.")
    exchange.stream_open = False
    await send({"type": "http.response.body", "body": b""})
    exchange.outcome = "upstream_error" if exchange.broken else "ok"


async def _pass_on(exchange: Exchange, response: UpstreamResponse, events: Iterable[bytes], send: Send) -> None:
    passed: list[bytes] = []
    try:
        for event in events:
            if _passes(exchange, event, begun=exchange.answered or bool(passed)):
                passed.append(event)
    finally:  # however the network cut the stream, what was whole before a fault reaches the client
        if passed:
            if not exchange.answered:
                await _start_stream(exchange, response, send)
            await send({"type": "http.response.body", "body": b"".join(passed), "more_body": True})


async def _start_stream(exchange: Exchange, response: UpstreamResponse, send: Send) -> None:
    headers = [*response.headers, *exchange.headers()]
    exchange.answered = exchange.stream_open = True
    await send({"type": "http.response.start", "status": response.status, "headers": headers})


def _passes(exchange: Exchange, event: bytes, *, begun: bool) -> bool:
    chunk = read_chunk(event)
    if chunk.is_error:
        if not begun:
            raise UpstreamError("The upstream's stream began with an error.")
        exchange.broken = True  # the upstream tells the client so itself
    exchange.done |= chunk.is_done
    exchange.finished |= chunk.finishes or chunk.is_done
    if chunk.usage is not None:
        exchange.usage = chunk.usage
        return not (chunk.usage_only and exchange.withhold_usage)
    return True
