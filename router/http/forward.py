"""Sends a request to the model that was chosen, and on to those that stand in for it, until one has answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from router.decide.decider import Decision
from router.errors import UpstreamError
from router.http.accounting import Accountant
from router.http.asgi import Send
from router.http.body import JSONBody, chat_body_for
from router.http.exchange import Exchange
from router.http.relay import relay
from router.tracing import Tracing
from router.upstream.attempts import Attempts
from router.upstream.client import UpstreamClient
from router.upstream.replicas import Endpoint, Replicas


class Chat(msgspec.Struct, frozen=True):
    """What is sent on of a client's request: its body, less what each model changes, and its headers."""

    body: JSONBody
    stream: bool
    wants_usage: bool
    headers: Sequence[tuple[bytes, bytes]]


class Forwarder:
    """Forwards chats to `models`, each by its name in the configuration."""

    def __init__(
        self, models: Mapping[str, Replicas], upstream: UpstreamClient, accountant: Accountant, tracing: Tracing
    ) -> None:
        self._models = models
        self._upstream = upstream
        self._accountant = accountant
        self._tracing = tracing

    async def forward(self, exchange: Exchange, decision: Decision, chat: Chat, send: Send) -> None:
        """Ask the decision's model, then its fallbacks, and pass on the first answer.

        Raises UpstreamError when nobody has answered, with what went wrong last, and while a stream is open.
        """
        models = [self._models[decision.model], *map(self._models.__getitem__, decision.fallbacks)]
        attempts = Attempts(models)
        endpoint: Endpoint | None = attempts.first()
        if endpoint is not None and endpoint.model is not models[0].model:
            self._accountant.fell_back(exchange, endpoint.model.name, models[0].why_not())
        exchange.silent = endpoint
        while endpoint is not None:
            endpoint = await self._ask(endpoint, attempts, exchange, chat, send)

    async def _ask(
        self, endpoint: Endpoint, attempts: Attempts, exchange: Exchange, chat: Chat, send: Send
    ) -> Endpoint | None:
        """Ask one server. Return None once it has answered, whom to ask next when it has failed in time for that."""
        try:
            await self._exchange_with(endpoint, exchange, chat, send)
        except UpstreamError as error:
            endpoint.failed(error)
            exchange.silent = None
            onward = None if exchange.answered else attempts.after(endpoint, error)
            if onward is None:
                raise
            self._accountant.failed(exchange, error)
            if onward.model is endpoint.model:
                self._accountant.retried(exchange, error)
            else:
                self._accountant.fell_back(exchange, onward.model.name, error)
            return onward
        endpoint.succeeded()
        return None

    async def _exchange_with(self, endpoint: Endpoint, exchange: Exchange, chat: Chat, send: Send) -> None:
        model = endpoint.model
        exchange.withhold_usage = chat.stream and not chat.wants_usage and model.stream_usage
        body = chat_body_for(chat.body, model.model, ask_usage=exchange.withhold_usage)
        with endpoint, self._tracing.span("upstream", model=model.name):
            headers = self._tracing.onward(chat.headers)
            exchange.asking()
            response = await self._upstream.post(model, endpoint.target, body, headers)
            try:
                self._tracing.describe(status=response.status)
                await relay(exchange, response, send, begun=endpoint.began)
            finally:
                response.release()
