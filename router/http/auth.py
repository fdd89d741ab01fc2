"""The gate before the public listener when clients are configured: whose key, how often, for how many dollars.

It looks at a request's head only, before the body is read. What the request asks for is `clients.permission`'s.
"""

from __future__ import annotations

from router.clients.keys import KeyRing, bearer_key
from router.clients.rates import Rates, Standing
from router.clients.spending import Spending, seconds_to_tomorrow
from router.errors import BudgetSpent, ClientError, InvalidAPIKey, OperatorsOnly, RateLimited
from router.http.asgi import CLIENT, ASGIApp, Message, Receive, Scope, Send, closing_gently, request_id, send_whole
from router.http.chat import CHAT_PATHS
from router.http.exchange import Exchange
from router.metrics import Metrics
from router.settings import NOBODY, ClientSettings, Settings

_OPEN = ("/health", "/health/live", "/health/ready", "/docs", "/openapi.json")
_OPERATORS = ("/metrics", "/config")
_RATED = (*CHAT_PATHS, "/v1/route")


class Gate:
    """Lets in who has a key and is within its limits; tells the application whose request it is by `scope[CLIENT]`."""

    def __init__(self, settings: Settings, rates: Rates, spending: Spending, metrics: Metrics) -> None:
        self._keys = KeyRing(settings.clients.values())
        self._rates = rates
        self._spending = spending
        self._metrics = metrics

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return `app` for those who are let in, and 401, 403 or 429 for the others."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] in _OPEN:
                await app(scope, receive, send)
                return
            client, standing = None, None
            try:
                client = scope[CLIENT] = self._identify(scope)
                if scope["path"] in _RATED and scope["method"] == "POST":
                    standing = self._standing_of(client)
                    self._admit(client, standing, costs=scope["path"] in CHAT_PATHS)
            except ClientError as error:
                self._count(scope, client, error)
                headers = [*error.headers(), (b"x-request-id", request_id(scope))]
                headers += standing.headers() if standing is not None else []
                await send_whole(closing_gently(receive, send), error.status, headers, error.body())
                return
            await app(scope, receive, send if standing is None else _telling(standing, send))

        return guarded

    def ended(self, exchange: Exchange) -> None:
        """Count a chat request that was let in, and charge its client."""
        client = exchange.client
        if client is None:
            return
        self._metrics.client_requests.labels(client.name, exchange.outcome).inc()
        if exchange.billed:
            self._charge(client, exchange)
        exchange.expected_cost = None  # the dashboard keeps exchanges, and no prompt

    def _charge(self, client: ClientSettings, exchange: Exchange) -> None:
        """Charge what the answer cost or, where that is not known, what one by that model is expected to."""
        dollars = exchange.dollars
        if dollars is None and exchange.expected_cost is not None and exchange.decision is not None:
            dollars = exchange.expected_cost(exchange.decision.model)
        if dollars:
            self._metrics.client_cost.labels(client.name).inc(dollars)
            if client.budget_per_day is not None:
                self._spending.add(client.name, dollars)

    def _identify(self, scope: Scope) -> ClientSettings:
        if scope["path"] in _OPERATORS:
            raise OperatorsOnly(f"{scope['path']} is for operators: it is on the router's other port, admin.port.")
        key = bearer_key(scope["headers"])
        if not key:
            raise InvalidAPIKey("Send your key for this router as `Authorization: Bearer KEY`.")
        client = self._keys.owner_of(key)
        if client is None:
            raise InvalidAPIKey("This key is not known here. Check it, or ask whoever runs the router for one.")
        return client

    def _standing_of(self, client: ClientSettings) -> Standing | None:
        return None if client.rate is None else self._rates.take(client.name, client.rate)

    def _admit(self, client: ClientSettings, standing: Standing | None, *, costs: bool) -> None:
        budget = client.budget_per_day
        if costs and budget is not None and self._spending.of_today(client.name) >= budget:
            raise BudgetSpent(
                f"This key has spent its ${budget:g} of today. The next day begins at 00:00 UTC.",
                retry_after_s=seconds_to_tomorrow(),
            )
        if standing is not None and standing.exceeded:
            raise RateLimited(
                f"This key has sent its {standing.limit} requests; it may send the next in {standing.whole_reset_s} s.",
                retry_after_s=standing.whole_reset_s,
            )

    def _count(self, scope: Scope, client: ClientSettings | None, error: ClientError) -> None:
        name = client.name if client is not None else NOBODY
        self._metrics.client_refusals.labels(name, error.code).inc()
        if scope["path"] in CHAT_PATHS and scope["method"] == "POST":
            self._metrics.requests.labels("none", "none", "none", "client_error").inc()
            self._metrics.client_requests.labels(name, "client_error").inc()


def _telling(standing: Standing, send: Send) -> Send:
    """Return a `send` that adds where the client stands, in place of where the router stands with its upstream."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [header for header in message["headers"] if not header[0].startswith(b"x-ratelimit-")]
            message["headers"] = [*kept, *standing.headers()]
        await send(message)

    return told
