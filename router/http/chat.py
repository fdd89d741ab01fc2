"""POST /v1/chat/completions: the hot path. A plain ASGI callable: read, decide, forward, account.

No framework, no model of the request, no copy of what it does not own: the body is parsed for a handful of fields
and passes on byte for byte but for `model`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from time import perf_counter

from router.decide.decider import Decider, Decision
from router.decide.prompt import Prompt
from router.errors import ClassifierError, ClientError, RouterError, UpstreamError
from router.http.accounting import Accountant
from router.http.asgi import (
    ClientGone,
    Receive,
    Scope,
    Send,
    cancelled_on_disconnect,
    request_id,
    send_whole,
)
from router.http.body import chat_body_for, check_stream_fields, parse_body, read_body
from router.http.exchange import Exchange
from router.http.selection import select
from router.settings import ModelSettings, PolicySettings, Settings
from router.tracing import Tracing
from router.upstream.client import UpstreamClient, UpstreamResponse
from router.upstream.sse import EventSplitter, error_event, read_chunk, read_usage

logger = logging.getLogger("router.http")

_JSON = (b"content-type", b"application/json")
_UPSTREAM_PATH = "/chat/completions"


class ChatEndpoint:
    """Answers chat completions for `settings`; one instance for all requests."""

    def __init__(
        self,
        settings: Settings,
        decider: Decider,
        upstream: UpstreamClient,
        accountant: Accountant,
        tracing: Tracing,
    ) -> None:
        self._settings = settings
        self._decider = decider
        self._upstream = upstream
        self._accountant = accountant
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever happens, it is accounted with exactly one outcome."""
        exchange = Exchange(request_id(scope), perf_counter())
        self._accountant.begin()
        try:
            with self._tracing.request(scope["headers"]):
                exchange.trace_id = self._tracing.trace_id()
                await self._answer(exchange, scope, receive, send)
        except ClientGone:
            exchange.outcome = "client_cancelled"
        except RouterError as error:
            exchange.outcome = _outcome_of(error)
            await _send_error(exchange, error, send)
        except Exception as error:  # a bug of ours: the client hears of it, the log names it, neither sees the prompt
            logger.error("request %s: %s", exchange.request_id.decode(), _without_values(error))
            await _send_error(exchange, RouterError("The router failed. The operator's log knows why."), send)
        finally:
            self._accountant.end(exchange)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._settings.server
        received = await read_body(scope, receive, limits.max_body_bytes, limits.body_timeout_s)
        exchange.started = perf_counter()
        body = parse_body(received)
        chosen = select(self._settings, body.fields, scope["headers"])
        wants_stream, wants_usage = check_stream_fields(body.fields)
        prompt = Prompt.of_chat(body.fields)
        async with cancelled_on_disconnect(receive):
            decision = chosen if isinstance(chosen, Decision) else await self._decide(chosen, prompt)
            exchange.decided(decision)
            self._accountant.decided(exchange)
            model = self._settings.models[decision.model]
            exchange.withhold_usage = wants_stream and not wants_usage and model.stream_usage
            forwarded = chat_body_for(body, model.model, ask_usage=exchange.withhold_usage)
            await self._forward(exchange, model, forwarded, scope, send)

    async def _decide(self, policy: PolicySettings, prompt: Prompt) -> Decision:
        with self._tracing.span("decide", policy=policy.name):
            decision = await self._decider.decide(policy, prompt)
            self._tracing.describe(model=decision.model, reason=decision.reason, source=decision.source)
            return decision

    async def _forward(self, exchange: Exchange, model: ModelSettings, body: bytes, scope: Scope, send: Send) -> None:
        with self._tracing.span("upstream", model=model.name):
            headers = self._tracing.onward(scope["headers"])
            self._accountant.forwarding(exchange)
            async with self._upstream.post(model, _UPSTREAM_PATH, body, headers) as response:
                self._tracing.describe(status=response.status)
                relay = _relay_stream if response.is_event_stream else _relay_whole
                await relay(exchange, response, send)
                exchange.outcome = "upstream_error" if exchange.broken else _outcome_of_status(response.status)


async def _relay_whole(exchange: Exchange, response: UpstreamResponse, send: Send) -> None:
    """Pass on an answer that comes in one piece, byte for byte."""
    body = await response.body()
    exchange.heard_from_upstream()
    exchange.usage = read_usage(body)
    headers = [*response.headers, *exchange.headers()]
    exchange.answered = True
    await send_whole(send, response.status, headers, body)


async def _relay_stream(exchange: Exchange, response: UpstreamResponse, send: Send) -> None:
    """Pass on an event stream, whole events only, one write per part; an event that only we asked for stays behind.

    Headers leave with the first event, so that a stream which begins with an error can still become an error.
    """
    splitter = EventSplitter()
    async for part in response.parts():
        if not exchange.answered:
            exchange.heard_from_upstream()
        await _pass_on(exchange, response, splitter.feed(part), send)
    await _pass_on(exchange, response, splitter.end(), send)
    if not exchange.answered:
        await _start_stream(exchange, response, send)
    exchange.stream_open = False
    await send({"type": "http.response.body", "body": b""})


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
    if chunk.usage is not None:
        exchange.usage = chunk.usage
        return not (chunk.usage_only and exchange.withhold_usage)
    return True


async def _send_error(exchange: Exchange, error: RouterError, send: Send) -> None:
    """Tell the client: as a response while that is possible, else as the stream's last event, without [DONE]."""
    if not exchange.answered:
        headers = [_JSON, *exchange.headers()]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        exchange.answered = True
        await send_whole(send, error.status, headers, error.body())
    elif exchange.stream_open:
        exchange.stream_open = False
        await send({"type": "http.response.body", "body": error_event(error.body())})


def _outcome_of_status(status: int) -> str:
    if status < 400:
        return "ok"
    return "upstream_4xx" if status < 500 else "upstream_5xx"


def _outcome_of(error: RouterError) -> str:
    if isinstance(error, ClientError):
        return "client_error"
    if isinstance(error, ClassifierError):
        return "classifier_error"
    return "upstream_error" if isinstance(error, UpstreamError) else "internal_error"


def _without_values(error: Exception) -> str:
    """Name an exception and the line that raised it; its message could hold a prompt or a key."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
    return f"{type(error).__name__} at {where}"
