import random
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from router.meters import LoopCounter, LoopGauge, LoopHistogram, Registry

BOUNDS = (0.1, 0.5, 1.0)


def values(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, str(sample.labels)): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_what_is_read_is_what_the_library_itself_would_have_counted() -> None:
    ours, theirs = Registry(), CollectorRegistry()
    meters: list[tuple[Any, Any, Any]] = [
        (
            counter("requests", "r", ["model"], registry=registry),
            gauge("in_flight", "i", registry=registry),
            histogram("seconds", "s", ["model"], buckets=BOUNDS, registry=registry),
        )
        for counter, gauge, histogram, registry in cast(
            Any,
            (
                (LoopCounter, LoopGauge, LoopHistogram, ours),
                (Counter, Gauge, Histogram, theirs),
            ),
        )
    ]
    numbers = random.Random(0)
    for _ in range(3):
        for _ in range(100):
            model, seconds = numbers.choice("ab"), numbers.choice([*BOUNDS, numbers.random() * 2])
            for requests, in_flight, duration in meters:
                requests.labels(model).inc(seconds)
                in_flight.inc(3)
                in_flight.dec(2)
                duration.labels(model).observe(seconds)
        assert values(ours) == pytest.approx(values(theirs))


def test_reading_twice_counts_once() -> None:
    registry = Registry()
    LoopCounter("requests", "r", registry=registry).inc()
    assert registry.get_sample_value("requests_total") == registry.get_sample_value("requests_total") == 1


def test_a_gauge_that_is_set_and_moved_says_both() -> None:
    registry = Registry()
    gauge = LoopGauge("depth", "d", registry=registry)
    gauge.set(5)
    gauge.inc(2)
    assert registry.get_sample_value("depth") == 7


def test_a_gauge_that_is_moved_and_set_says_what_was_set() -> None:
    registry = Registry()
    gauge = LoopGauge("depth", "d", registry=registry)
    gauge.inc(2)
    gauge.set(5)
    assert registry.get_sample_value("depth") == 5


def test_an_exemplar_is_kept() -> None:
    registry = Registry()
    LoopHistogram("seconds", "s", buckets=BOUNDS, registry=registry).observe(0.2, {"trace_id": "abc"})
    assert 'trace_id="abc"' in openmetrics(registry).decode()


def test_a_step_costs_the_library_nothing_until_it_is_read() -> None:
    registry = Registry()
    requests = LoopCounter("requests", "r", ["model"], registry=registry)
    for _ in range(1000):
        requests.labels("a").inc()
    assert len(registry.unsettled) == 1
    registry.settle()
    assert registry.unsettled == []
