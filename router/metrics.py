"""Every metric of the router: names, buckets and labels. One registry, injected.

Base units (seconds, dollars). Labels come from the configuration or from fixed lists, never from a request.
Counters and histograms are exact over several workers (`PROMETHEUS_MULTIPROC_DIR`); gauges are live sums.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

# Own overhead and its stages: from the cost of a cache hit to the 100 ms that we promise to stay under.
_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)
# A model's first byte and whole answers: from a cached reply to a long chain of thought.
_LLM_S = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0)
_BATCH_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)

OUTCOMES = (
    "ok",  # the upstream's answer reached its end with a status below 400
    "upstream_status",  # the upstream's own error, passed on
    "upstream_error",  # no answer, or one that broke off
    "classifier_error",  # refused by `triton.on_failure: reject`
    "client_error",  # 4xx of ours
    "client_cancelled",  # the client went away
    "internal_error",  # a bug of ours
)


class Metrics:
    """The router's metrics in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series each, which no query needs
        self.registry = CollectorRegistry()
        counter, histogram, gauge = self._counter, self._histogram, self._gauge

        self.requests = counter(
            "llm_router_requests",
            "Chat requests by their one terminal outcome.",
            "policy",
            "model",
            "reason",
            "outcome",
        )
        self.in_flight = gauge("llm_router_in_flight_requests", "Chat requests being answered now.")
        self.overhead = histogram(
            "llm_router_overhead_seconds",
            "Time to the response's headers less the time spent waiting for the upstream.",
            _OVERHEAD_S,
        )
        self.decide = histogram(
            "llm_router_decide_seconds",
            "Time to a decision: cache, queue, classifier and policy.",
            _OVERHEAD_S,
            "source",
        )
        self.ttft = histogram(
            "llm_router_upstream_ttft_seconds",
            "Time from sending to a stream's first part, or to a whole answer.",
            _LLM_S,
            "model",
        )
        self.duration = histogram(
            "llm_router_request_duration_seconds",
            "Time from a request's whole body to its terminal outcome.",
            _LLM_S,
            "model",
        )
        self.fallbacks = counter(
            "llm_router_fallbacks", "Decisions taken without the classifier, by what was wrong with it.", "reason"
        )
        self.decisions = counter(
            "llm_router_decisions",
            "Decisions by where the score came from and the classifier version.",
            "policy",
            "model",
            "source",
            "version",
        )
        self.queue_delay = histogram(
            "llm_router_queue_delay_seconds", "Time that a prompt waited for its batch to leave.", _OVERHEAD_S
        )
        self.classify = histogram(
            "llm_router_classify_seconds", "Time of one call to Triton, for a whole batch.", _OVERHEAD_S
        )
        self.batch_rows = histogram("llm_router_batch_rows", "Prompts in one call to Triton.", _BATCH_ROWS)
        self.shared_rows = counter("llm_router_shared_rows", "Prompts that shared the row of an identical one.")
        self.truncated = counter("llm_router_truncated_prompts", "Prompts longer than the classifier reads.")
        self.tokens = counter("llm_router_tokens", "Tokens as the upstream counted them.", "model", "kind")
        self.usage_unknown = counter(
            "llm_router_usage_unknown", "Answers whose tokens the upstream did not tell.", "model"
        )
        self.cost = counter(
            "llm_router_cost_dollars", "Dollars spent on models whose price is known.", "policy", "model"
        )
        self.baseline = counter(
            "llm_router_baseline_dollars",
            "Dollars that the same tokens would have cost at the policy's dearest model.",
            "policy",
        )
        self.unpriced = counter("llm_router_unpriced_requests", "Answers by models whose price is unknown.", "model")

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format, summed over the workers when there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call] # the library leaves it untyped
        return generate_latest(together)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def _histogram(self, name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help_, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(name, help_, registry=self.registry, multiprocess_mode="livesum")
