"""Turns what happened to a request into metrics, once, at its one terminal outcome."""

from __future__ import annotations

from time import perf_counter

from router.decide.batching import BatchReport
from router.decide.policy import candidates
from router.http.exchange import Exchange
from router.metrics import Metrics
from router.settings import Settings
from router.upstream.usage import baseline_dollars, dollars

_NONE = "none"


class Accountant:
    """Writes to `metrics` what requests and batches cost, in seconds, tokens and dollars."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._baselines = {
            name: [settings.models[model] for model in candidates(policy)] for name, policy in settings.policies.items()
        }

    def begin(self) -> None:
        """Count a request in."""
        self._metrics.in_flight.inc()

    def decided(self, exchange: Exchange) -> None:
        """Record how long the decision took and where it came from."""
        decision = exchange.decision
        if decision is None:
            return
        version = decision.classifier_version or _NONE
        self._metrics.decide.labels(decision.source).observe(perf_counter() - exchange.started)
        self._metrics.decisions.labels(decision.policy, decision.model, decision.source, version).inc()
        if decision.fallback_reason:
            self._metrics.fallbacks.labels(decision.fallback_reason).inc()
        truncated = sum(1 for c in decision.classifications if c.tokens_dropped)
        if truncated:
            self._metrics.truncated.inc(truncated)

    def batch(self, report: BatchReport) -> None:
        """Record one call to the classifier."""
        self._metrics.batch_rows.observe(report.rows)
        self._metrics.classify.observe(report.call_s)
        if report.shared:
            self._metrics.shared_rows.inc(report.shared)
        for delay in report.queue_s:
            self._metrics.queue_delay.observe(delay)

    def end(self, exchange: Exchange) -> None:
        """Count a request out, with its outcome and what it cost."""
        metrics, decision = self._metrics, exchange.decision
        metrics.in_flight.dec()
        if decision is None:
            metrics.requests.labels(_NONE, _NONE, _NONE, exchange.outcome).inc()
            return
        metrics.requests.labels(decision.policy, decision.model, decision.reason, exchange.outcome).inc()
        metrics.duration.labels(decision.model).observe(perf_counter() - exchange.started)
        if exchange.ttft_s is not None:
            metrics.ttft.labels(decision.model).observe(exchange.ttft_s)
        if exchange.overhead_s is not None:
            metrics.overhead.observe(exchange.overhead_s)
        if exchange.outcome == "ok":
            self._spend(exchange)

    def _spend(self, exchange: Exchange) -> None:
        metrics, decision, usage = self._metrics, exchange.decision, exchange.usage
        if decision is None:
            return
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
        metrics.cost.labels(decision.policy, decision.model).inc(cost)
        baseline = baseline_dollars(usage, self._baselines.get(decision.policy, [model]))
        if baseline is not None:
            metrics.baseline.labels(decision.policy).inc(baseline)
