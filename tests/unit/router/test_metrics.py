"""Every metric: its name, its help, its labels, and exact sums over several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.metrics import Metrics

# What a label may be: names of the configuration, or lists in the code. Nothing that a request can invent.
BOUNDED = {
    "policy",
    "model",
    "reason",
    "outcome",
    "source",
    "version",
    "kind",
    "le",
    "label",
    "result",
    "task",
    "python",
    "target",
    "code",
    "replica",
    "from",
    "to",
    "client",
}


@pytest.fixture
def text() -> str:
    """The metrics after each labelled one has been touched, so that all of them show."""
    metrics = Metrics()
    for metric in vars(metrics).values():
        if getattr(metric, "_labelnames", ()):
            metric.labels(*metric._labelnames)
    return metrics.text().decode()


def test_every_metric_is_ours_by_name_has_help_and_bounded_labels(text: str) -> None:
    families = list(text_string_to_metric_families(text))
    assert len(families) == len(set(vars(Metrics())) - {"registry"})
    for family in families:
        assert family.name.startswith("llm_router_")
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "histogram", "gauge")
        assert family.samples
        for sample in family.samples:
            assert set(sample.labels) <= BOUNDED


def test_counters_end_in_total_and_times_are_in_seconds(text: str) -> None:
    for family in text_string_to_metric_families(text):
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert names == {f"{family.name}_total"}
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_rows"))


def test_buckets_rise_and_tell_the_promised_overhead_apart() -> None:
    metrics = Metrics()
    metrics.overhead.labels("tiers")
    metrics.classify.labels("newest")
    for histogram in (metrics.overhead, metrics.queue_delay, metrics.classify, metrics.batch_rows):
        bounds = [float(s.labels["le"]) for m in histogram.collect() for s in m.samples if s.name.endswith("_bucket")]
        assert bounds == sorted(set(bounds))
        assert bounds[-1] == float("inf")
    overheads = {s.labels["le"] for m in metrics.overhead.collect() for s in m.samples if s.name.endswith("_bucket")}
    assert overheads >= {"0.01", "0.05", "0.1"}


def test_each_instance_has_a_registry_of_its_own() -> None:
    one, other = Metrics(), Metrics()
    one.shared_rows.inc()
    assert b"llm_router_shared_rows_total 1.0" in one.text()
    assert b"llm_router_shared_rows_total 0.0" in other.text()


WORKER = """
import sys
from router.metrics import Metrics

metrics = Metrics()
metrics.requests.labels("tiers", "cheap", "threshold", "ok").inc(int(sys.argv[1]))
metrics.overhead.labels("tiers").observe(0.004)
metrics.in_flight.inc(2)
print(metrics.text().decode())
"""


def test_several_workers_are_summed_and_counts_outlive_their_worker(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(count: int) -> str:
        command = [sys.executable, "-c", WORKER, str(count)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    worker(3)
    (tmp_path / "counter_1.db").touch()  # of a worker that starts just now
    families = {family.name: family for family in text_string_to_metric_families(worker(4))}
    [requests] = families["llm_router_requests"].samples
    assert (requests.value, requests.labels["model"]) == (7, "cheap")
    counts = [s.value for s in families["llm_router_overhead_seconds"].samples if s.name.endswith("_count")]
    assert counts == [2]
    [in_flight] = families["llm_router_in_flight_requests"].samples
    assert in_flight.value == 2, "what a dead worker had in flight is gone with it"
    assert all("pid" not in s.labels for family in families.values() for s in family.samples)
