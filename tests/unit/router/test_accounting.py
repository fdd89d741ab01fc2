"""What a request leaves in the metrics: once, at its end."""

from __future__ import annotations

from time import perf_counter

import pytest

from router.decide.batching import BatchReport
from router.decide.decider import Decision, manual
from router.errors import InvalidRequest, UpstreamConnect, UpstreamRefused
from router.http.accounting import Accountant
from router.http.exchange import Exchange
from router.metrics import OUTCOMES, Metrics
from router.upstream.sse import Usage
from tests.unit.router.examples import classification, settings

ROUTED = Decision(
    "cheap", "threshold", "tiers", "cheap", 0.1, "classifier", None, (classification(version="3", tokens_dropped=5),)
)

CHEAP, DEAR = {"policy": "tiers", "model": "cheap"}, {"policy": "tiers", "model": "dear"}
TASK = ROUTED.task


class Books:
    """An accountant with metrics of its own, read by name and labels."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.accountant = Accountant(settings(), self.metrics)

    def value(self, name: str, **labels: str | None) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"llm_router_{name}", {key: str(value) for key, value in labels.items()}
        )

    def total(self, name: str) -> float:
        return sum(
            sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == f"llm_router_{name}"
        )

    def answer(self, decision: Decision | None, outcome: str = "ok", usage: Usage | None = None) -> Exchange:
        exchange = Exchange(b"id", perf_counter() - 3.0)
        self.accountant.begin()
        if decision is not None:
            exchange.decided(decision)
            self.accountant.decided(exchange)
            exchange.sent = perf_counter() - 2.0
            exchange.heard_from_upstream()
            exchange.headers()
            exchange.answered = True
        exchange.usage = usage
        exchange.outcome = outcome
        self.accountant.end(exchange)
        return exchange


def test_a_request_counts_once_with_its_decision_and_outcome() -> None:
    books = Books()
    exchange = books.answer(ROUTED)
    assert books.value("requests_total", policy="tiers", model="cheap", reason="threshold", outcome="ok") == 1
    assert books.value("decisions_total", **CHEAP, label="cheap", source="classifier", version="3") == 1
    assert books.value("truncated_prompts_total") == 1
    assert books.value("upstream_ttft_seconds_sum", model="cheap") == exchange.ttft_s
    assert books.value("overhead_seconds_sum", policy="tiers") == exchange.overhead_s
    assert books.value("request_duration_seconds_sum", **CHEAP) == pytest.approx(3.0, abs=1.0)
    assert books.value("decide_seconds_count", source="classifier") == 1
    assert books.total("fallbacks_total") == 0


def test_in_flight_is_up_within_and_back_at_nothing_after() -> None:
    books = Books()
    for _ in range(2):
        books.accountant.begin()
    assert books.value("in_flight_requests") == 2
    for _ in range(2):
        books.accountant.end(Exchange(b"id", perf_counter()))
    assert books.value("in_flight_requests") == 0


@pytest.mark.parametrize("decision", [None, ROUTED, manual("dear")], ids=["refused", "routed", "manual"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_accepted_is_the_sum_of_the_outcomes_and_known_tokens_cost(decision: Decision | None, outcome: str) -> None:
    books = Books()
    books.answer(decision, outcome, Usage(1000, 500))
    assert books.total("requests_total") == 1
    assert books.value("in_flight_requests") == 0
    assert (books.total("cost_dollars_total") > 0) == (decision is not None)


def test_a_refused_request_has_no_labels_of_its_own() -> None:
    books = Books()
    books.answer(None, "client_error")
    assert books.value("requests_total", policy="none", model="none", reason="none", outcome="client_error") == 1
    assert books.total("request_duration_seconds_count") == 0


def test_a_fallback_says_what_was_wrong() -> None:
    books = Books()
    books.answer(Decision("dear", "fallback", "tiers", "dear", source="fallback", fallback_reason="deadline"))
    assert books.value("fallbacks_total", policy="tiers", reason="deadline") == 1
    assert books.value("decisions_total", **DEAR, label="dear", source="fallback", version="none") == 1


def test_tokens_dollars_and_the_dearest_candidate_s_dollars() -> None:
    books = Books()
    books.answer(ROUTED, usage=Usage(1000, 500))
    assert books.value("tokens_total", model="cheap", kind="prompt") == 1000
    assert books.value("tokens_total", model="cheap", kind="completion") == 500
    assert books.value("cost_dollars_total", **CHEAP, task=TASK) == pytest.approx(0.002)
    assert books.value("baseline_dollars_total", policy="tiers", task=TASK) == pytest.approx(0.030)


def test_a_client_s_own_choice_saves_nothing() -> None:
    books = Books()
    books.answer(manual("middle"), usage=Usage(1000, 500))
    assert books.value("cost_dollars_total", policy="none", model="middle", task="none") == pytest.approx(0.0075)
    assert books.value("baseline_dollars_total", policy="none", task="none") == pytest.approx(0.0075)


def test_unknown_usage_and_unknown_prices_are_counted_and_never_zero_dollars() -> None:
    books = Books()
    books.answer(ROUTED, usage=None)
    assert books.value("usage_unknown_total", model="cheap") == 1
    books.answer(manual("unpriced"), usage=Usage(1000, 500))
    assert books.value("unpriced_requests_total", model="unpriced") == 1
    assert books.value("tokens_total", model="unpriced", kind="prompt") == 1000
    assert books.total("cost_dollars_total") == books.total("baseline_dollars_total") == 0


def test_a_batch_is_reported_with_its_rows_and_waits() -> None:
    books = Books()
    books.accountant.batch(BatchReport(rows=3, shared=2, failed=1, queue_s=(0.001, 0.002, 0.003), call_s=0.02))
    assert books.value("batch_rows_sum") == 3
    assert books.value("shared_rows_total") == 2
    assert books.value("queue_delay_seconds_count") == 3
    assert books.value("queue_delay_seconds_sum") == pytest.approx(0.006)
    assert books.value("classify_seconds_sum", version="newest") == 0.02
    assert books.value("classified_rows_total", version="newest", result="ok") == 2
    assert books.value("classified_rows_total", version="newest", result="failed") == 1


def test_the_cache_and_the_version_are_counted_by_text() -> None:
    books = Books()
    twice = (classification(version="3"), classification(version="3"))
    books.answer(Decision("cheap", "threshold", "tiers", "cheap", 0.1, "classifier", None, twice, cache_hits=1))
    assert books.value("cache_lookups_total", result="hit") == 1
    assert books.value("cache_lookups_total", result="miss") == 1
    assert books.value("classifier_info", model="prompt_classifier", version="3") == 1


def test_the_queue_returns_to_nothing() -> None:
    books = Books()
    books.accountant.queue_changed(2)
    assert books.value("queue_depth") == 2
    books.accountant.queue_changed(-2)
    assert books.value("queue_depth") == 0


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("outcome", ["ok", "upstream_error", "client_cancelled", "stopped", "internal_error"])
def test_an_answer_that_had_begun_and_told_no_tokens_is_of_unknown_usage(outcome: str, answered: bool) -> None:
    books = Books()
    exchange = Exchange(b"id", perf_counter(), answered=answered, outcome=outcome)
    exchange.decided(ROUTED)
    books.accountant.end(exchange)
    assert exchange.billed is answered
    assert books.total("usage_unknown_total") == answered


def test_an_upstream_s_failure_is_counted_by_what_it_was() -> None:
    books = Books()
    exchange = Exchange(b"id", perf_counter())
    exchange.decided(ROUTED)
    books.accountant.failed(exchange, UpstreamConnect("refused"))
    books.accountant.failed(exchange, InvalidRequest("not the upstream's"))
    assert books.value("upstream_errors_total", model="cheap", code="upstream_connect") == 1
    assert books.total("upstream_errors_total") == 1


def test_retries_and_fallbacks_are_counted_and_the_one_who_answers_is_paid() -> None:
    books = Books()
    exchange = Exchange(b"id", perf_counter(), answered=True, outcome="ok", usage=Usage(1000, 500))
    exchange.decided(ROUTED)
    error = UpstreamConnect("refused")
    books.accountant.retried(exchange, error)
    books.accountant.fell_back(exchange, "dear", error)
    books.accountant.end(exchange)
    assert books.value("upstream_retries_total", model="cheap", reason="upstream_connect") == 1
    labels = {"from": "cheap", "to": "dear", "reason": "upstream_connect"}
    assert books.value("model_fallbacks_total", **labels) == 1
    assert books.value("requests_total", **DEAR, reason="threshold", outcome="ok") == 1
    assert books.value("cost_dollars_total", **DEAR, task=TASK) == pytest.approx(0.030)


@pytest.mark.parametrize(("status", "counted"), [(400, 0), (404, 0), (429, 1), (500, 1), (503, 1)])
def test_a_refusal_counts_as_the_upstream_s_error_unless_the_client_is_at_fault(status: int, counted: int) -> None:
    books = Books()
    exchange = Exchange(b"id", perf_counter())
    exchange.decided(ROUTED)
    books.accountant.failed(exchange, UpstreamRefused("refused", status, [], b"{}"))
    assert books.total("upstream_errors_total") == counted
