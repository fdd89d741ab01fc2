"""Puts the rooms together: settings in, an ASGI application out. Wiring and lifespan, nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from router import __version__
from router.breaker import Breaker
from router.clients.rates import Rates
from router.clients.spending import Ledger, Spending
from router.decide.batching import MicroBatcher
from router.decide.classification import Classification, Version
from router.decide.decider import Decider, classifiers
from router.decide.lanes import Lane, Lanes
from router.decide.scorer import ClassificationCache, Guard, Scorer
from router.decide.triton import Classifier, LabelClassifier, TritonClassifier, TritonConnection
from router.errors import ClassifierError, ConfigurationError, RouterError, error_body
from router.http.accounting import Accountant
from router.http.admission import Admission
from router.http.asgi import ASGIApp, Receive, Scope, Send, answer_safely
from router.http.auth import Gate
from router.http.chat import CHAT_PATHS, ChatEndpoint
from router.http.dashboard import dashboard_api
from router.http.decision_log import DecisionLog
from router.http.exchange import Exchange
from router.http.forward import Forwarder
from router.http.live import RecentExchanges, live_api
from router.http.models import models_api
from router.http.openapi import describe
from router.http.ops import Canary, ops_api
from router.http.reload import Reload, reload_api
from router.http.route import route_api
from router.http.same_site import same_site_only
from router.metrics import Metrics
from router.settings import Settings, TritonSettings
from router.tracing import Tracing
from router.upstream.client import UpstreamClient
from router.upstream.replicas import Replicas

logger = logging.getLogger("router")

Caches = dict[tuple[TritonSettings, str, tuple[str, ...]], ClassificationCache]
"""By all that a score depends on: where from, which model, and the labels that it was told."""


class Process:
    """What lasts as long as the process, while one `Application` follows another. All workers have `shared`."""

    def __init__(self, shared: Path) -> None:
        self.metrics = Metrics()
        self.recent = RecentExchanges()
        self.admission = Admission(self.metrics)
        self.caches: Caches = {}
        self.rates = Rates(shared)
        self.spending = Spending(self.metrics)


class Application:
    """The router for one configuration, as ASGI. An async context manager: its connections are open within.

    Leaving the context waits until the last request has been answered. `reload` is what POST /admin/reload does.
    """

    def __init__(self, settings: Settings, process: Process, reload: Reload | None = None) -> None:
        self.settings = settings
        self._gate = Gate(settings, process.rates, process.spending, process.metrics) if settings.clients else None
        self._accountant = Accountant(settings, process.metrics, self._ended(process))
        self._triton = triton_connection(settings)
        self._upstream = UpstreamClient()
        self._tracing = Tracing.to(settings.tracing.otlp_endpoint)
        self._decider = _decider(settings, self._triton, self._accountant, self._tracing, process.caches)
        self._decision_log: DecisionLog | None = None
        log = settings.decision_log
        if log.path is not None:
            self._decision_log = DecisionLog(log.path, log, settings.triton.max_text_chars, process.metrics)
        self._answer = self._listeners(process, reload)
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> Self:
        await self._triton.__aenter__()
        await self._upstream.__aenter__()
        if self._decision_log is not None:
            self._decision_log.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._idle.wait()
        await self._decider.close()
        await self._upstream.__aexit__()
        await self._triton.__aexit__()
        self._tracing.close()
        if self._decision_log is not None:
            await asyncio.to_thread(self._decision_log.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._in_flight += 1
        self._idle.clear()
        try:
            await self._answer(scope, receive, send)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def check_contract(self) -> None:
        """Raise ConfigurationError when a policy needs what the served classifier lacks, or a budget has no file.

        A Triton that cannot be asked is only logged: until it comes up the policies' default models answer.
        """
        if self.settings.server.state_dir is not None:
            await asyncio.to_thread(Ledger(self.settings.server.state_dir).check)
        try:
            await self._decider.check_contract()
        except ClassifierError as error:
            if error.reason == "contract":
                raise ConfigurationError([f"{self.settings.source}: {error}"]) from None
            logger.warning("going on without the classifier: %s", error)

    def _ended(self, process: Process) -> Callable[[Exchange], object]:
        """Return what is done with an exchange that is over."""
        gate, add = self._gate, process.recent.add
        if gate is None:
            return add

        def ended(exchange: Exchange) -> None:
            add(exchange)
            gate.ended(exchange)

        return ended

    def _listeners(self, process: Process, reload: Reload | None) -> ASGIApp:
        settings, decider = self.settings, self._decider
        api = FastAPI(
            title="LLM router",
            version=__version__,
            description="Every prompt is scored; the cheapest model that suffices answers.",
            redoc_url=None,  # /docs shows the same
        )
        canary = Canary(decider, settings.triton.on_failure, process.admission)
        route, ops = route_api(settings, decider), ops_api(settings, canary, process.metrics)
        for part in (models_api(settings), route, ops):
            api.include_router(part)
        _answer_errors_in_openai_shape(api, "/docs")
        describe(api, keys_needed=bool(settings.clients))
        models = {name: Replicas(model, settings.upstreams, process.metrics) for name, model in settings.models.items()}
        forwarder = Forwarder(models, self._upstream, self._accountant, self._tracing)
        chat = ChatEndpoint(settings, decider, forwarder, self._accountant, self._tracing, self._decision_log)
        public = _in_front_of(api, chat)
        if self._gate is not None:
            public = self._gate.guard(public)
        if not settings.admin.enabled:
            return public

        admin = FastAPI(openapi_url=None, dependencies=[Depends(same_site_only)])
        live = live_api(settings, canary, process.metrics, process.recent)
        for part in (dashboard_api(), live, route, ops):
            admin.include_router(part)
        if reload is not None:
            admin.include_router(reload_api(reload))
        _answer_errors_in_openai_shape(admin, "/dashboard")
        return _by_listener(settings.admin.port, admin, public)


def triton_connection(settings: Settings) -> TritonConnection:
    """Return the connection, still closed, to the configured Triton."""
    return TritonConnection(settings.triton.url, settings.triton.deadline_ms / 1000)


def _decider(
    settings: Settings, triton: TritonConnection, accountant: Accountant, tracing: Tracing, caches: Caches
) -> Decider:
    """Return the decider with the lanes of each Triton model that a policy needs; known scores stay known."""
    limits = settings.triton
    unshared = dataclasses.replace(limits, versions=())
    known = {(unshared, *asked): ClassificationCache(limits.cache_entries) for _, asked in classifiers(settings)}
    kept = {key: caches.get(key, cache) for key, cache in known.items()}
    caches.clear()
    caches.update(kept)
    lanes = {}
    for (_, name, labels), cache in kept.items():
        shares = limits.versions if name == limits.model and not labels else ()
        lanes[name, labels] = Lanes(
            [
                (percent, _lane(name, Version(version), labels, triton, limits, cache, accountant, tracing))
                for version, percent in shares or [("", 100.0)]
                if percent > 0
            ]
        )
    return Decider(settings, lanes)


def _lane(
    name: str,
    version: Version,
    labels: tuple[str, ...],
    triton: TritonConnection,
    limits: TritonSettings,
    cache: ClassificationCache,
    accountant: Accountant,
    tracing: Tracing,
) -> Lane:
    """Return the lane to one version of a Triton model, or with "" to whichever is the newest."""
    classifier: Classifier = (
        LabelClassifier(triton, name, labels) if labels else TritonClassifier(triton, name, version)
    )
    breaker = Breaker(
        failures_to_open=5, cooldown_s=1.0, changed=accountant.breaker_of(f"{name}/{version}" if version else name)
    )
    guard = Guard(tracing.around_batches(classifier.classify), breaker)
    deadline_s = (limits.deadline_ms + limits.max_queue_delay_ms) / 1000
    batcher: MicroBatcher[Classification] = MicroBatcher(
        guard.classify,
        max_batch_size=limits.max_batch_size,
        max_queue_delay_s=limits.max_queue_delay_ms / 1000,
        max_waiting=limits.max_waiting,
        max_in_flight=limits.max_batches_in_flight,
        patience_s=deadline_s,
        observe=partial(accountant.batch, version=version or "newest"),
        queue_changed=accountant.queue_changed,
    )
    return Lane(classifier, guard, Scorer(batcher, cache, guard, deadline_s, version or None))


def _in_front_of(api: FastAPI, chat: ASGIApp) -> ASGIApp:
    """Let chat requests past the framework: a plain callable answers two to three times as many of them."""

    def front(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"] in CHAT_PATHS and scope["method"] == "POST":
            return chat(scope, receive, send)
        return answer_safely(api, scope, receive, send)

    return front


def _by_listener(admin_port: int, admin: ASGIApp, public: ASGIApp) -> ASGIApp:
    """Let each listener answer for itself: the local port of a connection says which one took it."""

    def front(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["server"][1] == admin_port:
            return answer_safely(admin, scope, receive, send)
        return public(scope, receive, send)

    return front


def _answer_errors_in_openai_shape(api: FastAPI, help_page: str) -> None:
    async def ours(request: Request, error: Any) -> Response:  # noqa: ANN401 - Starlette's handler type is wider
        headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
        if error.closes_connection:
            headers["connection"] = "close"
        return Response(error.body(), error.status, headers, "application/json")

    async def starlettes(request: Request, error: Any) -> Response:  # noqa: ANN401
        if request.url.path in CHAT_PATHS:
            error = HTTPException(405, headers={"allow": "POST"})
        known = {404: ("not_found", "There is nothing here"), 405: ("method_not_allowed", "Wrong method")}
        code, message = known.get(error.status_code, ("http_error", str(error.detail)))
        body = error_body(
            f"{message}: {request.method} {request.url.path[:80]}. See {help_page}.",
            error.status_code,
            "invalid_request_error",
            code,
        )
        return Response(body, error.status_code, error.headers, "application/json")

    async def unexpected(_: Request, __: Exception) -> Response:
        error = RouterError("The router failed. The operator's log knows why.")
        return Response(error.body(), error.status, media_type="application/json")

    api.add_exception_handler(RouterError, ours)
    api.add_exception_handler(Exception, unexpected)
    api.add_exception_handler(HTTPException, starlettes)
