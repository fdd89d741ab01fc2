"""Turns what happened to a request into metrics, once, at its one terminal outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic, perf_counter

from router.breaker import State
from router.decide.batching import BatchReport
from router.decide.decider import Decision
from router.decide.policy import candidates
from router.errors import NotAllowed, RouterError, UpstreamError
from router.http.exchange import Exchange
from router.meters import LoopGauge
from router.metrics import Metrics
from router.settings import Settings
from router.upstream.usage import baseline_dollars, dollars

logger = logging.getLogger("router.upstream")

_NONE = "none"


class Accountant:
    """Writes to `metrics` what requests and batches cost, in seconds, tokens and dollars.

    `ended` is called with every exchange that is over.
    """

    def __init__(self, settings: Settings, metrics: Metrics, ended: Callable[[Exchange], object] | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._ended = ended
        self._baselines = {
            name: [settings.models[model].price for model in candidates(policy)]
            for name, policy in settings.policies.items()
        }
        self._warned = -1.0
        price = settings.triton.price_per_hour
        if price is not None:
            metrics.classifier_price.labels(settings.triton.model).set(price)

    def begin(self) -> None:
        """Count a request in."""
        self._metrics.in_flight.inc()

    def decided(self, exchange: Exchange) -> None:
        """Record how long the decision took and where it came from."""
        metrics, decision = self._metrics, exchange.decision
        if decision is None:
            return
        version = decision.classifier_version or _NONE
        metrics.decide.labels(decision.source).observe(perf_counter() - exchange.started)
        metrics.decisions.labels(decision.policy, decision.model, decision.label, decision.source, version).inc()
        if decision.fallback_reason:
            metrics.fallbacks.labels(decision.policy, decision.fallback_reason).inc()
        hits, texts = decision.cache_hits, len(decision.classifications)
        if hits:
            metrics.cache_lookups.labels("hit").inc(hits)
        if texts > hits:
            metrics.cache_lookups.labels("miss").inc(texts - hits)
            metrics.classifier.labels(self._settings.triton.model, version).set(1)
        for classification in decision.classifications:
            if classification.tokens_dropped:
                metrics.truncated.inc()

    def batch(self, report: BatchReport, version: str = "newest") -> None:
        """Record one call to a version of the classifier, or to whichever is the newest."""
        self._metrics.batch_rows.observe(report.rows)
        self._metrics.classify.labels(version).observe(report.call_s)
        self._metrics.classified_rows.labels(version, "ok").inc(report.rows - report.failed)
        self._metrics.classified_rows.labels(version, "failed").inc(report.failed)
        if report.shared:
            self._metrics.shared_rows.inc(report.shared)
        for delay in report.queue_s:
            self._metrics.queue_delay.observe(delay)

    def queue_changed(self, by: int) -> None:
        """Record that more (or fewer) prompts wait for a call to the classifier."""
        self._metrics.queue_depth.inc(by)

    def breaker_of(self, target: str) -> Callable[[State], None]:
        """Return what records the state of the breaker before `target`, closed until it says otherwise."""
        gauge: LoopGauge = self._metrics.breaker.labels(target)
        gauge.set(State.CLOSED)
        return gauge.set

    def failed(self, exchange: Exchange, error: RouterError) -> None:
        """Count an upstream's failure by what it was, and say so in the log, at most once a second; or a refusal."""
        if isinstance(error, NotAllowed) and exchange.client is not None:
            self._metrics.client_refusals.labels(exchange.client.name, error.code).inc()
        if exchange.decision is None or not isinstance(error, UpstreamError) or error.code == "upstream_4xx":
            return
        self._metrics.upstream_errors.labels(exchange.decision.model, error.code).inc()
        if monotonic() - self._warned >= 1.0:
            self._warned = monotonic()
            logger.warning("request %s: %s", exchange.request_id.decode(), error)

    def retried(self, exchange: Exchange, error: UpstreamError) -> None:
        """Count that the same model is asked again after `error`."""
        if exchange.decision is not None:
            self._metrics.retries.labels(exchange.decision.model, error.code).inc()

    def fell_back(self, exchange: Exchange, model: str, error: UpstreamError) -> None:
        """Count that `model` is asked because the one before it failed, or cannot be asked now."""
        if exchange.decision is not None:
            self._metrics.model_fallbacks.labels(exchange.decision.model, model, error.code).inc()
            exchange.fell_back(model, error.code)

    def end(self, exchange: Exchange) -> None:
        """Count a request out, with its outcome and what it cost."""
        self._count(exchange)
        if self._ended is not None:
            self._ended(exchange)

    def _count(self, exchange: Exchange) -> None:
        metrics, decision = self._metrics, exchange.decision
        metrics.in_flight.dec()
        if decision is None:
            metrics.requests.labels(_NONE, _NONE, _NONE, exchange.outcome).inc()
            return
        metrics.requests.labels(decision.policy, decision.model, decision.reason, exchange.outcome).inc()
        exemplar = {"trace_id": exchange.trace_id} if exchange.trace_id else None
        metrics.duration.labels(decision.policy, decision.model).observe(perf_counter() - exchange.started, exemplar)
        if exchange.ttft_s is not None:
            metrics.ttft.labels(decision.model).observe(exchange.ttft_s, exemplar)
        if exchange.overhead_s is not None:
            metrics.overhead.labels(decision.policy).observe(exchange.overhead_s, exemplar)
        if exchange.usage is not None or exchange.answered:
            self._spend(exchange, decision)

    def _spend(self, exchange: Exchange, decision: Decision) -> None:
        metrics, usage = self._metrics, exchange.usage
        exchange.billed = True
        if usage is None:
            metrics.usage_unknown.labels(decision.model).inc()
            return
        metrics.tokens.labels(decision.model, "prompt").inc(usage.prompt_tokens)
        metrics.tokens.labels(decision.model, "completion").inc(usage.completion_tokens)
        model = self._settings.models[decision.model]
        cost = dollars(usage, model.price)
        if cost is None:
            metrics.unpriced.labels(decision.model).inc()
            return
        task = decision.task or _NONE
        metrics.cost.labels(decision.policy, decision.model, task).inc(cost)
        baseline = baseline_dollars(usage, self._baselines.get(decision.policy, [model.price]))
        exchange.dollars, exchange.baseline_dollars = cost, baseline
        if baseline is not None:
            metrics.baseline.labels(decision.policy, task).inc(baseline)
