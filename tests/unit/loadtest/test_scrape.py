import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from loadtest.scrape import Page
from loadtest.serve import describe

HISTOGRAM = "llm_router_overhead_seconds"


def page(observations=(), cheap=0, expensive=0):
    registry = CollectorRegistry()
    requests = Counter("llm_router_requests", "r", ["model"], registry=registry)
    requests.labels("cheap-sim").inc(cheap)
    requests.labels("expensive-sim").inc(expensive)
    histogram = Histogram(HISTOGRAM, "o", ["policy"], buckets=(0.001, 0.002, 0.004), registry=registry)
    for policy, value in observations:
        histogram.labels(policy).observe(value)
    return Page.parse(generate_latest(registry).decode())


def test_totals_add_up_what_carries_the_labels():
    scraped = page(cheap=3, expensive=1)
    assert scraped.total("llm_router_requests_total") == 4
    assert scraped.total("llm_router_requests_total", model="cheap-sim") == 3
    assert scraped.total("llm_router_requests_total", model="other") == 0
    assert scraped.total("nothing") == 0


def test_a_counter_without_total_in_its_name_gets_it():
    text = "# TYPE nv_inference_count counter\n" + 'nv_inference_count{model="m",version="1"} 7\n'
    assert Page.parse(text).total("nv_inference_count_total", model="m") == 7


def test_a_quantile_is_interpolated_over_all_series():
    scraped = page([("a", 0.0005), ("b", 0.0015), ("a", 0.003), ("b", 0.003)])
    assert scraped.quantile(HISTOGRAM, 0.25) == pytest.approx(0.001)
    assert scraped.quantile(HISTOGRAM, 0.50) == pytest.approx(0.002)
    assert scraped.quantile(HISTOGRAM, 0.75) == pytest.approx(0.003)


def test_a_quantile_beyond_the_last_bound_is_that_bound():
    assert page([("a", 60.0)]).quantile(HISTOGRAM, 0.5) == 0.004


def test_an_empty_or_missing_histogram_has_no_quantile():
    assert page().quantile(HISTOGRAM, 0.5) is None
    assert page().quantile("nothing", 0.5) is None


def test_the_status_line():
    assert describe(page()) == "no request answered yet · 0 in flight"
    line = describe(page([("a", 0.0015)] * 4, cheap=3, expensive=1))
    assert (
        line == "4 requests · 75% to cheap-sim · overhead p50 1.5 ms, p95 1.9 ms · 0 in flight"
    )  # 1.95 rounds to even
