"""What the dashboard is told: recent decisions, totals from the metrics, Triton's own figures. And its page."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import router.http.dashboard
from router.breaker import State
from router.decide.decider import Decision, manual
from router.http.accounting import Accountant
from router.http.dashboard import content_security_policy
from router.http.exchange import Exchange
from router.http.live import RecentExchanges, cheapest, totals
from router.http.samples import Samples
from router.http.triton_metrics import TritonMetrics, described
from router.metrics import Metrics
from router.upstream.sse import Usage
from tests.fake_gpu_metrics import GPU_PAGE, PAGE, fake_metrics
from tests.unit.router.examples import MODELS, classification, settings

ROUTED = Decision("cheap", "threshold", "tiers", "cheap", 0.1, "classifier", None, (classification(version="3"),))


class Router:
    """An accountant with its metrics, and the ring that it feeds."""

    def __init__(self, size: int = 100) -> None:
        self.metrics, self.recent = Metrics(), RecentExchanges(size)
        self.accountant = Accountant(settings(price_per_hour=2.0), self.metrics, self.recent.add)

    def answer(self, decision: Decision | None, usage: Usage | None = None, name: str = "id") -> Exchange:
        exchange = Exchange(name.encode(), perf_counter() - 0.5)
        self.accountant.begin()
        if decision is not None:
            exchange.decided(decision)
            self.accountant.decided(exchange)
            exchange.asking()
            exchange.heard_from_upstream()
            exchange.headers()
        exchange.outcome = "ok" if decision else "client_error"
        exchange.usage = usage
        self.accountant.end(exchange)
        return exchange

    def totals(self) -> dict[str, object]:
        return totals(Samples(self.metrics.samples()))


def test_a_decision_is_told_with_everything_but_its_prompt() -> None:
    router = Router()
    before = time.time() - 0.5
    router.answer(ROUTED, Usage(1000, 500), "mine")
    [told] = router.recent.described()
    assert before - 0.1 <= told.pop("time") <= time.time()
    assert told.pop("overhead_ms") >= 500
    assert told.pop("ttft_ms") >= 0
    assert told == {
        "request_id": "mine",
        "outcome": "ok",
        "client": None,
        "policy": "tiers",
        "model": "cheap",
        "reason": "threshold",
        "source": "classifier",
        "fallback_reason": None,
        "score": 0.1,
        "task": "Chatbot",
        "classifier_version": "3",
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "dollars": pytest.approx(0.002),
        "baseline_dollars": pytest.approx(0.030),
    }


def test_what_is_unknown_is_none() -> None:
    router = Router()
    router.answer(None)
    router.answer(manual("unpriced"), Usage(1, 1))
    router.answer(manual("cheap"), None)
    no_usage, no_price, refused = router.recent.described()
    assert {name for name, value in refused.items() if value is not None} == {"time", "request_id", "outcome"}
    assert refused["outcome"] == "client_error"
    assert (no_price["dollars"], no_price["prompt_tokens"]) == (None, 1)
    assert (no_usage["dollars"], no_usage["prompt_tokens"]) == (None, None)
    json.dumps(router.recent.described(), allow_nan=False)


def test_the_newest_stand_first_and_the_oldest_are_forgotten() -> None:
    router = Router(size=3)
    for number in range(5):
        router.answer(ROUTED, name=str(number))
    assert [told["request_id"] for told in router.recent.described()] == ["4", "3", "2"]
    assert router.recent.described() == router.recent.described(), "a viewer that looks twice must see equal times"


def test_totals_are_those_of_the_metrics() -> None:
    router = Router()
    for _ in range(3):
        router.answer(ROUTED, Usage(1000, 500))
    router.answer(manual("dear"), Usage(10, 10))
    router.answer(None)
    told = router.totals()
    assert told["requests"] == {
        "outcome": {"ok": 4, "client_error": 1},
        "model": {"cheap": 3, "dear": 1, "none": 1},
        "policy": {"tiers": 3, "none": 2},
        "reason": {"threshold": 3, "manual": 1, "none": 1},
    }
    assert told["tokens"] == {"prompt": 3010, "completion": 1510}
    assert told["cache"] == {"miss": 3}
    assert told["breaker"] == 0
    assert told["classifier_versions"] == ["3"]
    assert abs(float(str(told["started"])) - time.time()) < 60
    assert told["dollars"] == {
        "spent": pytest.approx(0.0065),
        "compared": pytest.approx(0.0065),
        "baseline": pytest.approx(0.0905),
        "unpriced_requests": 0,
        "classifier_per_hour": 2.0,
    }


def test_the_worst_breaker_is_told() -> None:
    router = Router()
    router.accountant.breaker_of("one")(State.OPEN)
    router.accountant.breaker_of("another")
    assert router.totals()["breaker"] == 2


def test_spending_without_a_baseline_is_no_loss() -> None:
    samples = Samples.parse(
        'llm_router_cost_dollars_total{policy="a",model="m",task="none"} 5\n'
        'llm_router_cost_dollars_total{policy="b",model="m",task="none"} 1\n'
        'llm_router_baseline_dollars_total{policy="b",task="none"} 3\n'
    )
    told = totals(samples)["dollars"]
    assert (told["spent"], told["compared"], told["baseline"]) == (6, 1, 3)
    assert told["classifier_per_hour"] is None, "an unknown price is not zero"


def test_a_histogram_is_summed_over_its_labels_and_counted_by_bucket() -> None:
    metrics = Metrics()
    for policy, seconds in (("a", 0.0004), ("a", 0.004), ("b", 0.004), ("b", 7.0)):
        metrics.overhead.labels(policy).observe(seconds)
    histogram = Samples(metrics.samples()).histogram("llm_router_overhead_seconds")
    assert histogram["bounds"][:2] == [0.0005, 0.001]
    assert histogram["bounds"][-1] == 1.0
    assert len(histogram["counts"]) == len(histogram["bounds"]) + 1
    assert [(i, n) for i, n in enumerate(histogram["counts"]) if n] == [(0, 1), (4, 2), (15, 1)]
    assert histogram["sum"] == pytest.approx(7.0084)
    assert Samples([]).histogram("llm_router_overhead_seconds") == {"bounds": [], "counts": [], "sum": 0}


def test_the_cheapest_model_is_one_whose_price_is_known() -> None:
    assert cheapest(MODELS.values()) == "cheap"
    assert cheapest([MODELS["unpriced"], MODELS["dear"]]) == "dear"
    assert cheapest([MODELS["unpriced"]]) is None


# --- Triton's metrics --------------------------------------------------------------------------------------------


def test_triton_is_told_for_the_one_model_over_its_versions() -> None:
    told = described(Samples.parse(PAGE), "prompt_classifier")
    assert (told["served"], told["rows"], told["executions"], told["pending"]) == (True, 100, 20, 4)
    assert told["failures"] == {"REJECTED": 2}
    assert told["gpus"] == []
    assert described(Samples.parse(PAGE), "unknown")["served"] is False


def test_a_gpu_is_told_as_far_as_it_is_known() -> None:
    [gpu] = described(Samples.parse(PAGE + GPU_PAGE), "prompt_classifier")["gpus"]
    assert gpu == {
        "uuid": "GPU-1",
        "utilization": 0.5,
        "memory_used_bytes": 20 * 2**30,
        "memory_total_bytes": 80 * 2**30,
        "power_watts": 300,
        "power_limit_watts": None,
    }


async def test_triton_is_asked_once_however_many_look() -> None:
    with fake_metrics(200, PAGE.encode()) as (url, asked):
        triton = TritonMetrics(url, "prompt_classifier")
        await asyncio.gather(*(triton.state() for _ in range(5)))
        told = await triton.state()
        assert (told["reachable"], told["url"], told["rows"], asked()) == (True, url, 100, 1)


def test_totals_tell_fallbacks_and_refusals_by_reason() -> None:
    router = Router()
    metrics = router.metrics
    metrics.fallbacks.labels("tiers", "deadline").inc(2)
    metrics.model_fallbacks.labels("cheap", "dear", "upstream_connect").inc()
    metrics.model_fallbacks.labels("dear", "cheap", "upstream_connect").inc()
    metrics.refused.labels("in_flight").inc(3)
    metrics.client_refusals.labels("team", "rate_limit_exceeded").inc()
    told = router.totals()
    assert told["fallbacks"] == {"deadline": 2}
    assert told["model_fallbacks"] == {"upstream_connect": 2}
    assert told["refused"] == {"in_flight": 3, "event_loop": 0, "line": 0}
    assert told["client_refusals"] == {"rate_limit_exceeded": 1}


@pytest.mark.parametrize(
    ("status", "body"), [(404, PAGE.encode()), (200, b"<html>"), (200, b"\xff\xfe"), (302, b"")], ids=str
)
async def test_another_page_is_not_taken_for_triton(status: int, body: bytes) -> None:
    with fake_metrics(status, body) as (url, _):
        told = await TritonMetrics(url, "prompt_classifier").state()
    assert told == {"url": url, "reachable": False, "why": "what answers there is not Triton's metrics"}


async def test_an_unreachable_triton_is_said() -> None:
    with fake_metrics(200, b"") as (url, _):
        pass
    told = await TritonMetrics(url, "prompt_classifier").state()
    assert told == {"url": url, "reachable": False, "why": "connection refused"}


@given(st.text() | st.from_regex(r'[a-z]{1,3}(\{[a-z]="?[^}]*\}?)? ?[0-9a-z]*\n?', fullmatch=True))
def test_no_text_breaks_the_reading(text: str) -> None:
    with suppress(ValueError):
        Samples.parse(text)


# --- the page ----------------------------------------------------------------------------------------------------

HTML = Path(router.http.dashboard.__file__).with_name("dashboard.html").read_text()


def test_the_policy_allows_the_page_s_own_script_and_style_and_nothing_else() -> None:
    policy = dict(part.split(" ", 1) for part in content_security_policy(HTML).split("; "))
    [script] = re.findall(r"<script>(.*?)</script>", HTML, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy)


def test_the_page_is_one_file_that_writes_text_only() -> None:
    outside = re.findall(r"(?:src|href|action)=[\"'](?!#|data:)[^\"']*|url\([^)]*|@import[^;]*", HTML)
    assert outside == []
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\son\w+="
    assert re.findall(markup, HTML) == []
    assert len(HTML.splitlines()) <= 700
