"""One request's timings, and the headers that explain its decision."""

from __future__ import annotations

from time import perf_counter

import pytest

from router.decide.decider import Decision, manual
from router.http.exchange import Exchange, decision_headers
from tests.unit.router.examples import classification


def exchange(began_s_ago: float = 0.0) -> Exchange:
    return Exchange(b"an-id", perf_counter() - began_s_ago)


@pytest.mark.parametrize(
    ("decision", "headers"),
    [
        (
            Decision("dear", "threshold", "tiers", "dear", 0.41236, "classifier", None, (classification(version="3"),)),
            ("dear", "tiers", "threshold", "classifier", "0.4124", "3", "dear"),
        ),
        (
            Decision("cheap", "task", "tasks", "Chatbot", 0.9, "cache", None, (classification(version="3"),)),
            ("cheap", "tasks", "task", "cache", "0.9000", "3", "Chatbot"),
        ),
        (
            Decision("dear", "fallback", "tiers", "dear", source="fallback", fallback_reason="deadline"),
            ("dear", "tiers", "fallback", "fallback;reason=deadline", "none", "none", "dear"),
        ),
        (manual("cheap"), ("cheap", "none", "manual", "none", "none", "none", "cheap")),
        (manual("cheap", "Smörgås 🥪"), ("cheap", "none", "manual", "none", "none", "none", "Smörgås ?")),
    ],
)
def test_a_decision_is_explained_in_headers(decision: Decision, headers: tuple[str, ...]) -> None:
    names = ["model", "policy", "reason", "decision", "score", "classifier-version"]
    expected = dict(zip([*(f"x-router-{name}" for name in names), "x-chosen-classifier"], headers, strict=True))
    sent = {name.decode(): value.decode("latin-1") for name, value in decision_headers(decision)}
    assert sent == expected


def test_headers_begin_with_the_request_id_and_end_with_the_overhead() -> None:
    request = exchange()
    assert [name for name, _ in request.headers()] == [b"x-request-id", b"x-router-overhead-ms"]
    request.decided(manual("cheap"))
    headers = request.headers()
    assert headers[0] == (b"x-request-id", b"an-id")
    assert headers[1:-1] == decision_headers(manual("cheap"))
    assert headers[-1][0] == b"x-router-overhead-ms"


def test_the_overhead_is_all_time_but_the_upstream_s() -> None:
    request = exchange(began_s_ago=10.0)
    request.sent = perf_counter() - 8.0
    request.heard_from_upstream()
    overhead_ms = float(dict(request.headers())[b"x-router-overhead-ms"])
    assert request.ttft_s == pytest.approx(8.0, abs=1.0)
    assert overhead_ms == pytest.approx(2000, abs=1000)
    assert request.overhead_s == pytest.approx(overhead_ms / 1000, abs=0.001)


def test_a_wait_in_line_is_our_overhead() -> None:
    request = Exchange(b"an-id", perf_counter(), queued_s=7.0)
    request.headers()
    assert request.overhead_s == pytest.approx(7.0, abs=1.0)


def test_without_an_upstream_all_time_is_ours() -> None:
    request = exchange(began_s_ago=10.0)
    request.headers()
    assert request.ttft_s is None
    assert request.overhead_s == pytest.approx(10.0, abs=1.0)


def test_waiting_in_vain_is_neither_our_overhead_nor_a_ttft() -> None:
    request = exchange(began_s_ago=10.0)
    request.sent = perf_counter() - 8.0
    request.headers()
    assert request.overhead_s == pytest.approx(2.0, abs=1.0)
    assert request.ttft_s is None


def test_an_exchange_that_nobody_ended_is_a_bug_of_ours() -> None:
    assert exchange().outcome == "internal_error"


def test_attempts_that_failed_are_no_overhead_of_ours() -> None:
    request = exchange(began_s_ago=10.0)
    request.sent = perf_counter() - 8.0  # to a model that took five seconds to fail
    request.ttft_s = 5.0
    request.asking()
    assert request.ttft_s is None
    request.sent, request.waited_s = perf_counter() - 3.0, 5.0
    request.heard_from_upstream()
    request.headers()
    assert request.ttft_s == pytest.approx(3.0, abs=1.0)
    assert request.overhead_s == pytest.approx(2.0, abs=1.0)


def test_a_fallback_is_told_from_the_chosen_model_to_the_one_that_answered() -> None:
    request = exchange()
    request.decided(manual("cheap"))
    assert b"x-router-fallback" not in dict(request.headers())
    request.fell_back("middle", "upstream_5xx")
    request.fell_back("dear", "upstream_connect")
    headers = dict(request.headers())
    assert headers[b"x-router-fallback"] == b"cheap->dear;reason=upstream_connect"
    assert (headers[b"x-router-model"], headers[b"x-chosen-classifier"]) == (b"dear", b"cheap")
