"""POST /v1/chat/completions: the hot path. A plain ASGI callable: read, decide, forward, account.

No framework, no model of the request, no copy of what it does not own: the body is parsed for a handful of fields
and passes on byte for byte but for `model`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from time import perf_counter

from router.clients.permission import Offers
from router.decide.decider import Decider
from router.decide.prompt import Prompt
from router.errors import (
    BodyTimeout,
    ClassifierError,
    ClientError,
    RouterError,
    Stopping,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
    without_values,
)
from router.http.accounting import Accountant
from router.http.asgi import (
    CLIENT,
    WAITED_S,
    ClientGone,
    Interruption,
    Receive,
    Scope,
    Send,
    closing_gently,
    request_id,
    send_whole,
)
from router.http.body import check_stream_fields, parse_body, read_body
from router.http.decision_log import DecisionLog
from router.http.exchange import Exchange
from router.http.forward import Chat, Forwarder
from router.http.selection import select
from router.settings import Settings
from router.tracing import Tracing
from router.upstream.sse import error_event

logger = logging.getLogger("router.http")

CHAT_PATHS = ("/v1/chat/completions", "/completions")
_LAST_WORDS_S = 1.0


class ChatEndpoint:
    """Answers chat completions for `settings`; one instance for all requests."""

    def __init__(
        self,
        settings: Settings,
        decider: Decider,
        forwarder: Forwarder,
        accountant: Accountant,
        tracing: Tracing,
        decision_log: DecisionLog | None = None,
    ) -> None:
        self._settings = settings
        self._offers = Offers(settings)
        self._decider = decider
        self._forwarder = forwarder
        self._accountant = accountant
        self._tracing = tracing
        self._decision_log = decision_log
        self._body_timeout = partial(BodyTimeout.after, settings.server.body_timeout_s)
        self._total_limits = {  # of a whole answer with all attempts at it, also when nobody reads it
            name: (model.timeouts.total_s, partial(UpstreamTimeout.after, name, model.timeouts.total_s))
            for name, model in settings.models.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever happens, it is accounted with exactly one outcome."""
        exchange = Exchange(request_id(scope), perf_counter(), scope.get(WAITED_S, 0.0), client=scope.get(CLIENT))
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
            if exchange.silent is not None and isinstance(error, UpstreamTimeout):  # it had all of `timeouts.total_s`
                exchange.silent.failed(error)
            await _send_error(exchange, error, closing_gently(receive, send))
        except asyncio.CancelledError:  # the server's patience with open requests is over
            exchange.outcome = "stopped"
            await _send_error(exchange, Stopping("The router was stopped. Try again."), send)
        except Exception as error:  # a bug of ours: the client hears of it, the log names it, neither sees the prompt
            logger.error("request %s: %s", exchange.request_id.decode(), without_values(error))
            await _send_error(exchange, RouterError("The router failed. The operator's log knows why."), send)
        finally:
            self._accountant.end(exchange)
            self._log(exchange)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._settings.server
        with Interruption(scope) as interruption:
            interruption.limit(limits.body_timeout_s, self._body_timeout)
            received = await read_body(scope, receive, limits.max_body_bytes)
            interruption.lift()
            exchange.started = perf_counter()
            body = parse_body(received)
            offer = self._offers.to(exchange.client)
            chosen = select(self._settings, offer, body.fields, scope["headers"])
            wants_stream, wants_usage = check_stream_fields(body.fields)
            prompt = Prompt.of_chat(body.fields)
            if self._decision_log is not None:
                exchange.logged_prompt = self._decision_log.text_of(prompt)
            with self._tracing.span("decide"):
                decision = await self._decider.decide(chosen, prompt, offer.models)
                self._tracing.describe(
                    policy=decision.policy, model=decision.model, reason=decision.reason, source=decision.source
                )
            exchange.decided(decision)
            self._accountant.decided(exchange)
            if exchange.client is not None:
                exchange.expected_cost = partial(self._decider.expected_cost, prompt=prompt)
            interruption.limit(*self._total_limits[decision.model])
            chat = Chat(body, wants_stream, wants_usage, scope["headers"])
            await self._forwarder.forward(exchange, decision, chat, send)

    def _log(self, exchange: Exchange) -> None:
        if self._decision_log is not None and exchange.logged_prompt is not None:
            self._decision_log.add(exchange, exchange.logged_prompt)
            exchange.logged_prompt = None  # the dashboard keeps exchanges, and no prompt


async def _send_error(exchange: Exchange, error: RouterError, send: Send) -> None:
    """Tell the client: as a response while that is possible, else as the stream's last event, without [DONE]."""
    if not exchange.answered:
        headers = [*error.headers(), *exchange.headers()]
        if error.closes_connection:
            headers.append((b"connection", b"close"))
        await send_whole(send, error.status, headers, error.body())
    elif exchange.stream_open:
        exchange.stream_open = False
        with suppress(TimeoutError):  # a client that does not read shall not hold us
            async with asyncio.timeout(_LAST_WORDS_S):
                await send({"type": "http.response.body", "body": error_event(error.body())})


def _outcome_of(error: RouterError) -> str:
    if isinstance(error, ClientError):
        return "client_error"
    if isinstance(error, ClassifierError):
        return "classifier_error"
    if isinstance(error, UpstreamRefused):
        return "upstream_4xx" if error.status < 500 else "upstream_5xx"
    return "upstream_error" if isinstance(error, UpstreamError) else "internal_error"
