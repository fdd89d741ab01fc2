"""Puts the rooms together: settings in, an ASGI application out. Wiring and lifespan, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from router import __version__
from router.breaker import Breaker
from router.decide.batching import MicroBatcher
from router.decide.classification import Classification
from router.decide.decider import Decider, Lane, classifier_of
from router.decide.scorer import ClassificationCache, Guard, Scorer
from router.decide.triton import Classifier, LabelClassifier, TritonClassifier, TritonConnection
from router.errors import RouterError, error_body
from router.http.accounting import Accountant
from router.http.asgi import ASGIApp, Receive, Scope, Send, answer_safely
from router.http.chat import ChatEndpoint
from router.http.dashboard import dashboard_api
from router.http.live import RecentExchanges, live_api
from router.http.models import models_api
from router.http.openapi import describe
from router.http.ops import Canary, ops_api
from router.http.route import route_api
from router.metrics import Metrics
from router.settings import FixedPolicy, LabelPolicy, Settings
from router.tracing import Tracing
from router.upstream.client import UpstreamClient

CHAT_PATHS = ("/v1/chat/completions", "/completions")


def create_app(settings: Settings) -> ASGIApp:
    """Return the router for these settings; its connections open and close with ASGI's lifespan."""
    metrics = Metrics()
    recent = RecentExchanges()
    accountant = Accountant(settings, metrics, recent.add)
    triton = triton_connection(settings)
    upstream = UpstreamClient()
    tracing = Tracing.to(settings.tracing.otlp_endpoint)
    decider = create_decider(settings, triton, accountant, tracing)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with triton, upstream:
            yield
            await decider.close()
        tracing.close()

    api = FastAPI(
        title="LLM router",
        version=__version__,
        description="Every prompt is scored; the cheapest model that suffices answers.",
        lifespan=lifespan,
    )
    canary = Canary(decider, settings.triton.on_failure)
    route, ops = route_api(settings, decider), ops_api(settings, canary, metrics)
    for part in (models_api(settings), route, ops):
        api.include_router(part)
    _answer_errors_in_openai_shape(api, "/docs")
    describe(api)
    public = _in_front_of(api, ChatEndpoint(settings, decider, upstream, accountant, tracing))
    if not settings.admin.enabled:
        return public

    admin = FastAPI(openapi_url=None)
    for part in (dashboard_api(), live_api(settings, canary, metrics, recent), route, ops):
        admin.include_router(part)
    _answer_errors_in_openai_shape(admin, "/dashboard")
    return _by_listener(settings.admin.port, admin, public)


def triton_connection(settings: Settings) -> TritonConnection:
    """Return the connection, still closed, to the configured Triton."""
    return TritonConnection(settings.triton.url, settings.triton.deadline_ms / 1000)


def create_decider(settings: Settings, triton: TritonConnection, accountant: Accountant, tracing: Tracing) -> Decider:
    """Return the decider with one lane for each Triton model that a policy needs."""
    classifiers: dict[str, Classifier] = {}
    for policy in settings.policies.values():
        model = classifier_of(policy, settings)
        if isinstance(policy, LabelPolicy):
            classifiers[model] = LabelClassifier(triton, model, [label for label, _ in policy.llms])
        elif not isinstance(policy, FixedPolicy):
            classifiers[model] = TritonClassifier(triton, model)
    return Decider(settings, {name: _lane(name, c, settings, accountant, tracing) for name, c in classifiers.items()})


def _lane(name: str, classifier: Classifier, settings: Settings, accountant: Accountant, tracing: Tracing) -> Lane:
    limits = settings.triton
    breaker = Breaker(failures_to_open=5, cooldown_s=1.0, changed=accountant.breaker_of(name))
    guard = Guard(tracing.around_batches(classifier.classify), breaker)
    batcher: MicroBatcher[Classification] = MicroBatcher(
        guard.classify,
        max_batch_size=limits.max_batch_size,
        max_queue_delay_s=limits.max_queue_delay_ms / 1000,
        max_waiting=limits.max_waiting,
        max_in_flight=limits.max_batches_in_flight,
        observe=accountant.batch,
        queue_changed=accountant.queue_changed,
    )
    deadline_s = (limits.deadline_ms + limits.max_queue_delay_ms) / 1000
    cache = ClassificationCache(limits.cache_entries)
    return Lane(classifier, guard, Scorer(batcher, cache, guard, deadline_s))


def _in_front_of(api: FastAPI, chat: ChatEndpoint) -> ASGIApp:
    """Let chat requests past the framework: a plain callable answers two to three times as many of them."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await api(scope, receive, send)
        elif scope["path"] in CHAT_PATHS and scope["method"] == "POST":
            await chat(scope, receive, send)
        else:
            await answer_safely(api, scope, receive, send)

    return front


def _by_listener(admin_port: int, admin: ASGIApp, public: ASGIApp) -> ASGIApp:
    """Let each listener answer for itself: the local port of a connection says which one took it."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        local = scope.get("server")  # absent for the lifespan
        if scope["type"] == "http" and local and local[1] == admin_port:
            await answer_safely(admin, scope, receive, send)
        else:
            await public(scope, receive, send)

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
