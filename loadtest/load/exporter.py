"""The run as Prometheus metrics, made anew for every scrape from what has been counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from loadtest.load.distribution import Distribution
from loadtest.load.pricing import Catalogue
from loadtest.load.tally import Tally

_LLM_S = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_TOKEN_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)

_HISTOGRAMS = (
    ("e2e", "locust_request_duration_seconds", "From sending a request to the end of its answer.", _LLM_S),
    ("ttft", "locust_ttft_seconds", "From sending a streamed request to its first token.", _LLM_S),
    ("itl", "locust_itl_seconds", "Between one token's event and the next.", _TOKEN_S),
    ("tpot", "locust_tpot_seconds", "Each token after the first, as an average over an answer.", _TOKEN_S),
)


class LoadCollector(Collector):
    """Metrics of the run that is going on, or of the last one; every run begins at zero."""

    def __init__(
        self, total: Callable[[], Tally], users: Callable[[], int], catalogue: Callable[[], Catalogue | None]
    ) -> None:
        self._total, self._users, self._catalogue = total, users, catalogue

    def collect(self) -> Iterable[Metric]:
        """Return all metrics."""
        tally = self._total()
        yield GaugeMetricFamily("locust_users", "Users at this moment.", value=self._users())
        yield _counter(tally, "answers", "locust_requests", "Complete answers.", "endpoint", "model")
        yield _counter(tally, "errors", "locust_errors", "Requests without one.", "endpoint", "error_type")
        yield _counter(tally, "tokens", "locust_tokens", "Tokens as the upstream counted them.", "model", "kind")
        yield _counter(tally, "decisions", "locust_decisions", "Answers by the router's reason.", "reason")
        yield _counter(tally, "good", "locust_good_answers", "Answers that met the objective.")
        yield _counter(tally, "usage_unknown", "locust_usage_unknown", "Answers without a token count.", "model")
        for name, metric, about, bounds in _HISTOGRAMS:
            family = HistogramMetricFamily(metric, about, labels=["model"])
            for (found, model), distribution in tally.distributions.items():
                if found == name:
                    family.add_metric([model], buckets(distribution, bounds), distribution.total)
            yield family
        overhead = HistogramMetricFamily("locust_router_overhead_seconds", "As the router's header says.", labels=[])
        overhead.add_metric([], buckets(tally.over("overhead"), _OVERHEAD_S), tally.over("overhead").total)
        yield overhead
        yield from self._dollars(tally)

    def _dollars(self, tally: Tally) -> Iterable[Metric]:
        catalogue = self._catalogue()
        if catalogue is None:
            return
        bill = catalogue.bill(tally)
        cost = CounterMetricFamily("locust_cost_dollars", "Dollars for tokens of known price.", labels=["model"])
        for model, dollars in bill.by_model.items():
            if dollars is not None:
                cost.add_metric([model], dollars)
        yield cost
        if bill.baseline is not None:
            about = "Dollars for the same tokens at the dearest model."
            yield CounterMetricFamily("locust_baseline_dollars", about, value=bill.baseline)


def buckets(distribution: Distribution, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Return cumulative (upper bound, count) pairs as Prometheus wants them."""
    pairs: list[tuple[str, float]] = [(str(bound), distribution.at_most(bound)) for bound in bounds]
    return [*pairs, ("+Inf", distribution.count)]


def _counter(tally: Tally, name: str, metric: str, about: str, *labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily(metric, about, labels=labels)
    if not labels:
        family.add_metric([], tally.total(name))
        return family
    for key, count in sorted(tally.counts.items()):
        if key[0] == name:
            family.add_metric(key[1:], count)
    return family
