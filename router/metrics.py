"""Every metric of the router: names, buckets and labels. One registry, injected.

Base units (seconds, dollars). Labels come from the configuration or from fixed lists, never from a request.
Counters and histograms are exact over several workers (`PROMETHEUS_MULTIPROC_DIR`), but for the last 20 ms of a worker
that is killed; gauges are live sums.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from router import __version__
from router.meters import LoopCounter, LoopGauge, LoopHistogram, Registry

# Own overhead and its stages: from the cost of a cache hit to the 100 ms that we promise to stay under.
_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)
# A model's first byte and whole answers: from a cached reply to a long chain of thought.
_LLM_S = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)

OUTCOMES = (
    "ok",  # the upstream's answer reached its end with a status below 400
    "upstream_4xx",  # the upstream's own refusal, passed on
    "upstream_5xx",  # the upstream's own failure, passed on
    "upstream_error",  # no answer, or one that broke off
    "classifier_error",  # refused by `triton.on_failure: reject`
    "client_error",  # 4xx of ours
    "client_cancelled",  # the client went away
    "overloaded",  # refused before its body was read
    "stopped",  # cut off when the router stopped
    "internal_error",  # a bug of ours
)


class Metrics:
    """The router's metrics in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series each, which no query needs
        self.registry = Registry()
        counter, histogram, gauge = self._counter, self._histogram, self._gauge

        # Requests
        self.requests = counter(
            "requests", "Chat requests by their one terminal outcome.", "policy", "model", "reason", "outcome"
        )
        self.in_flight = gauge("in_flight_requests", "Chat requests being answered now.")
        self.duration = histogram(
            "request_duration_seconds", "From the whole body to the terminal outcome.", _LLM_S, "policy", "model"
        )
        self.overhead = histogram(
            "overhead_seconds", "Time to the response's headers less the wait for the upstream.", _OVERHEAD_S, "policy"
        )

        self.refused = counter(
            "refused_requests", "Requests refused before their body was read: in_flight, event_loop or line.", "reason"
        )
        for reason in ("in_flight", "event_loop", "line"):
            self.refused.labels(reason)

        # Decisions
        self.decisions = counter(
            "decisions",
            "Decisions by NVIDIA's label, by where the score came from and by the classifier version.",
            "policy",
            "model",
            "label",
            "source",
            "version",
        )
        self.decide = histogram(
            "decide_seconds", "From the whole body to a decision: parse, cache, queue, classify.", _OVERHEAD_S, "source"
        )
        self.fallbacks = counter(
            "fallbacks", "Decisions taken without the classifier, by what was wrong with it.", "policy", "reason"
        )
        self.cache_lookups = counter("cache_lookups", "Texts looked up in the cache: hit or miss.", "result")
        self.truncated = counter("truncated_prompts", "Scored texts that are longer than the classifier reads.")

        # Batches and the classifier
        self.queue_delay = histogram("queue_delay_seconds", "Wait of a prompt for its batch to leave.", _OVERHEAD_S)
        self.queue_depth = gauge("queue_depth", "Prompts that wait for a call to Triton.")
        self.classify = histogram(
            "classify_seconds",
            "One call to Triton, for a whole batch, by the version asked for.",
            _OVERHEAD_S,
            "version",
        )
        self.classified_rows = counter(
            "classified_rows", "Prompts sent to Triton by the version asked for: ok or failed.", "version", "result"
        )
        self.batch_rows = histogram("batch_rows", "Prompts in one call to Triton.", _BATCH_ROWS)
        self.shared_rows = counter("shared_rows", "Prompts that shared the row of an identical one.")
        self.breaker = gauge("breaker_state", "0 closed, 1 half open, 2 open, the worst worker's.", "target", of="max")
        self.classifier = gauge("classifier_info", "1 for each version that has scored.", "model", "version", of="max")
        self.classifier_price = gauge(
            "classifier_dollars_per_hour", "What the classifier's GPU costs; absent while unknown.", "model", of="max"
        )

        # Upstreams
        self.ttft = histogram(
            "upstream_ttft_seconds", "From sending to a stream's first part, or to a whole answer.", _LLM_S, "model"
        )
        self.upstream_in_flight = gauge("upstream_in_flight_requests", "Connections in use.", "model", "replica")
        self.upstream_breaker = gauge(
            "upstream_breaker_state",
            "0 closed, 1 half open, 2 open, the worst worker's.",
            "model",
            "replica",
            of="max",
        )
        self.upstream_errors = counter(
            "upstream_errors", "Answers that a model did not give or did not finish, by error code.", "model", "code"
        )
        self.retries = counter(
            "upstream_retries", "Requests sent to the same model again, by what had failed.", "model", "reason"
        )
        self.model_fallbacks = counter(
            "model_fallbacks", "Requests sent to another model than the chosen one, by why.", "from", "to", "reason"
        )
        self.tokens = counter("tokens", "Tokens as the upstream counted them.", "model", "kind")
        self.usage_unknown = counter("usage_unknown", "Answers whose tokens the upstream did not tell.", "model")

        # Dollars
        self.cost = counter("cost_dollars", "Spent on models whose price is known.", "policy", "model", "task")
        self.baseline = counter("baseline_dollars", "The same tokens at the policy's dearest model.", "policy", "task")
        self.unpriced = counter("unpriced_requests", "Answers by models whose price is unknown.", "model")

        # Clients, when there are any
        self.client_requests = counter(
            "client_requests", "Chat requests of each client by their one terminal outcome.", "client", "outcome"
        )
        self.client_refusals = counter(
            "client_refusals", "Requests refused for their key, rate, budget or permissions.", "client", "reason"
        )
        self.client_cost = counter(
            "client_cost_dollars", "What counts against each client's budget, estimates included.", "client"
        )
        self.client_budget_left = gauge(
            "client_budget_left_dollars", "What a client may still spend today (UTC).", "client", of="min"
        )

        # The process
        self.decision_log_lines = Counter(  # by a thread of its own
            "llm_router_decision_log_lines",
            "Lines of the decision log: written, or dropped when the disk is too slow.",
            ["result"],
            registry=self.registry,
        )
        self.loop_lag = histogram("event_loop_lag_seconds", "How late the event loop was, by a timer in it.", _LAG_S)
        self.loop_blocked = counter("event_loop_blocked", "Times that it was late by over 100 ms; the log says where.")
        self.in_flight_limit = gauge("in_flight_limit", "Requests that may be in flight now.", of="sum")
        self.config_reloads = counter(
            "config_reloads", "Reloads of the configuration, each worker's own: ok or rejected.", "result"
        )
        for result in ("ok", "rejected"):  # 0 until then, which a rate and an alert can see change
            self.config_reloads.labels(result)
        self.config_hash = gauge("config_hash", "The configuration in force as a number; keys are no part.", of="max")
        self.config_hash_min = gauge("config_hash_min", "The same, where workers disagree the least.", of="min")
        self.build = gauge(
            "build_info", "1, with the versions of this router and its Python.", "version", "python", of="max"
        )
        self.build.labels(__version__, platform.python_version()).set(1)
        self.started = gauge("start_time_seconds", "When the router started, in Unix time.", of="first")
        self.started.set_to_current_time()

    def configured(self, fingerprint: int) -> None:
        """Note which configuration this process has."""
        self.config_hash.set(fingerprint)
        self.config_hash_min.set(fingerprint)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format, summed over the workers when there are several."""
        return self.exposition("")[0]

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their media type: OpenMetrics, which has exemplars, for whom `accept` asks for it."""
        encode, media_type = choose_encoder(accept)
        return encode(self._of_all_workers()), media_type

    def samples(self) -> Iterator[Sample]:
        """Yield the same, sample by sample."""
        for family in self._of_all_workers().collect():
            yield from family.samples

    def _of_all_workers(self) -> CollectorRegistry:
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if shared is None:
            return self.registry
        self.registry.settle()
        _forget_dead_workers(Path(shared))
        together = CollectorRegistry()
        together.register(_AllWorkers(Path(shared)))
        return together

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return LoopCounter(f"llm_router_{name}", help_, labels, registry=self.registry)

    def _histogram(self, name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return LoopHistogram(f"llm_router_{name}", help_, labels, buckets=buckets, registry=self.registry)

    def _gauge(
        self, name: str, help_: str, *labels: str, of: Literal["sum", "max", "min", "first"] = "sum"
    ) -> LoopGauge:
        """Return a gauge: of the live workers the sum, the maximum or the least; or the least that there ever was."""
        modes: dict[str, Literal["livesum", "livemax", "livemin", "min"]]
        modes = {"sum": "livesum", "max": "livemax", "min": "livemin", "first": "min"}
        return LoopGauge(f"llm_router_{name}", help_, labels, registry=self.registry, multiprocess_mode=modes[of])


class _AllWorkers(Collector):
    """The library's collector, but for files of a worker that starts just now: they are empty for a moment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all workers, the dead ones' counters too."""
        files = [str(file) for file in self._directory.glob("*.db") if _has_begun(file)]
        merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call] # the library leaves it untyped
        return cast("Iterable[Metric]", merged)


def _has_begun(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # another worker has just dropped a dead one's gauges
        return False


def _forget_dead_workers(directory: Path) -> None:
    """Drop the gauges of workers that were killed; what they counted stays."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in directory.glob("gauge_live*_*.db")}:
        if not Path(f"/proc/{pid}").exists():
            with suppress(FileNotFoundError):  # another worker does the same at this moment
                mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call] # the library leaves it untyped
