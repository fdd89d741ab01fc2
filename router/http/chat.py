"""POST /v1/chat/completions: the hot path. A plain ASGI callable: read, decide, forward, account.

No framework, no model of the request, no copy of what it does not own: the body is parsed for a handful of fields
and passes on byte for byte but for `model`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import perf_counter

from router.decide.decider import Decider, Decision
from router.decide.prompt import Prompt
from router.errors import (
    ClassifierError,
    ClientError,
    RouterError,
    Stopping,
    UpstreamError,
    UpstreamTimeout,
    without_values,
)
from router.http.accounting import Accountant
from router.http.asgi import (
    ClientGone,
    Receive,
    Scope,
    Send,
    cancelled_on_disconnect,
    closing_gently,
    request_id,
    send_whole,
)
from router.http.body import chat_body_for, check_stream_fields, parse_body, read_body
from router.http.exchange import Exchange
from router.http.relay import relay
from router.http.selection import select
from router.settings import ModelSettings, PolicySettings, Settings
from router.tracing import Tracing
from router.upstream.client import UpstreamClient
from router.upstream.sse import error_event

logger = logging.getLogger("router.http")

_JSON = (b"content-type", b"application/json")
_UPSTREAM_PATH = "/chat/completions"
_LAST_WORDS_S = 1.0


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
            exchange.outcome = "ok" if exchange.done else "client_cancelled"
        except RouterError as error:
            exchange.outcome = _outcome_of(error)
            self._accountant.failed(exchange, error)
            await _send_error(exchange, error, closing_gently(receive, send))
        except asyncio.CancelledError:  # the server's patience with open requests is over
            exchange.outcome = "stopped"
            await _send_error(exchange, Stopping("The router was stopped. Try again."), send)
        except Exception as error:  # a bug of ours: the client hears of it, the log names it, neither sees the prompt
            logger.error("request %s: %s", exchange.request_id.decode(), without_values(error))
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
            async with _within(model), self._upstream.post(model, _UPSTREAM_PATH, body, headers) as response:
                self._tracing.describe(status=response.status)
                await relay(exchange, response, send)


async def _send_error(exchange: Exchange, error: RouterError, send: Send) -> None:
    """Tell the client: as a response while that is possible, else as the stream's last event, without [DONE]."""
    if not exchange.answered:
        headers = [_JSON, *exchange.headers()]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        if error.closes_connection:
            headers.append((b"connection", b"close"))
        exchange.answered = True
        await send_whole(send, error.status, headers, error.body())
    elif exchange.stream_open:
        exchange.stream_open = False
        with suppress(TimeoutError):  # a client that does not read shall not hold us
            async with asyncio.timeout(_LAST_WORDS_S):
                await send({"type": "http.response.body", "body": error_event(error.body())})


@asynccontextmanager
async def _within(model: ModelSettings) -> AsyncIterator[None]:
    """Hold an answer to `timeouts.total_s`, also one that nobody reads."""
    try:
        async with asyncio.timeout(model.timeouts.total_s):
            yield
    except TimeoutError:
        raise UpstreamTimeout(f"Model '{model.name}' took longer than {model.timeouts.total_s:g} s.") from None


def _outcome_of(error: RouterError) -> str:
    if isinstance(error, ClientError):
        return "client_error"
    if isinstance(error, ClassifierError):
        return "classifier_error"
    return "upstream_error" if isinstance(error, UpstreamError) else "internal_error"
