"""The figures of a run, what they cost, and the pages made of them."""

import json
import re
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.load.charts import Line, line_chart, nice_ceiling
from loadtest.load.exporter import LoadCollector
from loadtest.load.floor import floor_in_words, floor_of
from loadtest.load.generator import health_of
from loadtest.load.measure import Recorder
from loadtest.load.pricing import Catalogue
from loadtest.load.progress import progress_line
from loadtest.load.report import in_words, make_report
from loadtest.load.report_html import render
from loadtest.load.settings import LoadSettings
from loadtest.load.summary import summarize
from loadtest.load.tally import Tally
from tests.unit.load.test_tally import OBJECTIVE, Clock, answer

LISTING = {
    "data": [
        {"id": "auto", "kind": "policy", "policy": "default"},
        {"id": "default", "kind": "policy", "models": ["cheap", "strong"]},
        {"id": "unpriced-policy", "kind": "policy", "models": ["cheap", "free"]},
        {"id": "cheap", "kind": "model", "price": {"input": 1.0, "output": 2.0}},
        {"id": "strong", "kind": "model", "price": {"input": 10.0, "output": 20.0}},
        {"id": "gold", "kind": "model", "price": {"input": 100.0, "output": 200.0}},
        {"id": "free", "kind": "model", "price": None},
    ]
}
CATALOGUE = Catalogue.of(LISTING, "auto")


def run(*answers, errors=0, model="auto", catalogue=CATALOGUE, windows=3):
    clock = Clock()
    recorder = Recorder(clock)
    recorder.all_users_there()
    for _ in range(windows):
        for one in answers:
            recorder.current.answered(one, OBJECTIVE)
        for _ in range(errors):
            recorder.current.failed("/v1/chat/completions", "http_503")
        for _ in range(10):
            recorder.current.observe("lag", 0.001)
            recorder.current.observe("cpu", 0.3)
        clock.now += 2.0
        recorder.cut(4)
    recorder.stopping()
    settings = LoadSettings(model=model, slo_ttft_ms=500, slo_e2e_ms=2000)
    return summarize(recorder, settings, catalogue, datetime(2026, 5, 1, tzinfo=UTC), 1)


MIXED = (answer(), answer(), answer(), answer(model="strong", e2e_s=3.0, reason="threshold"))


def test_rates_are_per_second_of_the_steady_part():
    figures = run(*MIXED)
    assert figures["steady_seconds"] == 6.0
    assert figures["requests"] == 12
    assert figures["answers_per_s"] == pytest.approx(2.0)
    assert figures["tokens_per_s"] == pytest.approx(10.0)
    assert figures["goodput_per_s"] == pytest.approx(1.5)
    assert figures["goodput_share"] == pytest.approx(0.75)
    assert figures["in_flight_mean"] == pytest.approx((3 * 1.0 + 3.0) * 3 / 6)
    assert figures["models"]["cheap"]["share"] == 0.75
    assert figures["latency_ms"]["e2e"]["by_model"]["strong"]["p50"] == pytest.approx(3000, rel=0.011)
    assert figures["overhead_ms"]["p95"] == pytest.approx(4.0, rel=0.011)


def test_errors_count_in_all_of_the_run():
    figures = run(*MIXED, errors=1)
    assert figures["errors"] == {"http_503": 3}
    assert figures["error_rate"] == pytest.approx(3 / 15)


def test_savings_compare_with_the_policys_dearest_model():
    # 10 prompt and 5 completion tokens each: cheap 20, strong 200 dollars per million requests
    dollars = run(*MIXED)["dollars"]
    assert dollars["baseline_model"] == "strong"
    assert dollars["spent"] == pytest.approx((9 * 20 + 3 * 200) / 1e6)
    assert dollars["baseline"] == pytest.approx(12 * 200 / 1e6)
    assert dollars["saved_share"] == pytest.approx(1 - 780 / 2400)
    assert dollars["spent_per_1000_answers"] == pytest.approx(1000 * 65 / 1e6)


@pytest.mark.parametrize(
    "catalogue", [None, Catalogue({}), Catalogue.of(LISTING, "unpriced-policy"), Catalogue.of({"data": []}, "auto")]
)
def test_an_unknown_price_makes_dollars_unknown_and_never_zero(catalogue):
    figures = run(answer(model="free"), catalogue=catalogue)
    assert figures["dollars"] is None
    assert figures["models"]["free"]["dollars"] is None
    assert "unknown" in render(make_report([("R", figures)]))


@pytest.mark.parametrize(
    ("model", "dearest"),
    [("auto", "strong"), ("default@0.7", "strong"), ("unpriced-policy", None), ("cheap", None), ("nobody", None)],
)
def test_the_dearest_model_is_the_dearest_of_the_policy(model, dearest):
    assert Catalogue.of(LISTING, model).dearest == dearest


def test_a_run_without_answers_claims_nothing():
    figures = run()
    assert (figures["error_rate"], figures["goodput_share"], figures["overhead_ms"]) == (None, None, None)
    assert "no answers" in in_words(make_report([("R", figures)]))[0]
    assert "</html>" in render(make_report([("R", figures)]))


def generator(cpu, lag_s):
    tally = Tally()
    for _ in range(20):
        tally.observe("cpu", cpu)
        tally.observe("lag", lag_s)
    return health_of(tally)


def test_a_saturated_generator_says_so():
    assert not generator(0.4, 0.002).saturated
    busy, late = generator(0.97, 0.05), generator(0.4, 0.05)
    assert busy.saturated
    assert "The generator was saturated" in busy.verdict
    assert late.saturated
    assert "other processes" in late.verdict


def test_the_floor_is_what_is_measured_above_the_true_times():
    figures = run(*(answer(ttft_s=0.053, gaps_s=(0.0105,)) for _ in range(5)))
    floor = floor_of(figures)
    assert floor["ttft_added_ms"]["p50"] == pytest.approx(3.0, abs=0.6)
    assert floor["itl_added_ms"]["p50"] == pytest.approx(0.5, abs=0.2)
    assert "adds 3" in floor_in_words(floor) or "adds 2." in floor_in_words(floor)
    assert "too few answers" in floor_in_words(floor_of(run()))


def ramp(good_until):
    clock = Clock()
    recorder = Recorder(clock)
    recorder.all_users_there()
    for users in range(10, 110, 10):
        for _ in range(users):
            recorder.current.answered(answer(e2e_s=1.0 if users <= good_until else 9.0), OBJECTIVE)
        clock.now += 2.0
        recorder.cut(users)
    settings = LoadSettings(shape="ramp", slo_ttft_ms=500, slo_e2e_ms=2000)
    return summarize(recorder, settings, None, datetime(2026, 5, 1, tzinfo=UTC), 1)["knee"]


def test_the_knee_is_the_last_level_at_which_answers_were_good():
    assert ramp(good_until=60) == {"users": 60, "answers_per_s": 30.0, "reached_the_end": False}
    assert ramp(good_until=100)["reached_the_end"]
    assert ramp(good_until=0) is None
    assert run(*MIXED)["knee"] is None


def test_two_runs_are_compared_row_by_row():
    routed, baseline = run(*MIXED), run(*[answer(model="strong", e2e_s=2.0, overhead_s=0.001)] * 4, model="strong")
    rows = {row["name"]: row for row in make_report([("A", routed), ("B", baseline)])["comparison"]}
    assert rows["Dollars for 1,000 answers"]["ratio"] == pytest.approx(65 / 200)
    assert rows["Whole answer, p50"]["ratio"] == pytest.approx(0.5, rel=0.02)
    assert rows["Errors"]["ratio"] is None
    overhead = rows["Router's own overhead, p95"]
    assert (overhead["ratio"], overhead["difference"]) == (None, pytest.approx(3.0, rel=0.02))


def test_the_page_needs_nothing_from_elsewhere_and_shows_the_figures():
    routed, baseline = run(*MIXED, errors=1), run(*[answer(model="strong")] * 4, model="strong")
    floor = floor_of(run(answer(ttft_s=0.052, gaps_s=(0.0101,))))
    page = render(make_report([("With the router", routed), ("Always strong", baseline)], floor))
    assert "src=" not in page
    assert "href=" not in page
    for shown in ("http_503", "67.5%", "With the router against always strong", "as many users", "<svg"):
        assert shown in page, shown


def test_what_a_server_names_cannot_become_markup():
    figures = run(answer(model="<script>alert(1)</script>", reason="<b>"))
    page = render(make_report([("R", figures)]))
    assert "<script" not in page
    assert "<b>" not in re.sub(r"<b>[^<]*</b>", "", page)


def test_a_report_is_json_and_holds_no_key():
    settings = LoadSettings(api_key="sk-secret")
    figures = summarize(Recorder(Clock()), settings, None, datetime.now(UTC), 1)
    assert "sk-secret" not in json.dumps(make_report([("R", figures)]))


def test_a_line_breaks_where_nothing_was_measured():
    drawing = line_chart([1, 2, 3, 4], [Line("x", "a", [1.0, None, 3.0, 4.0])], unit="ms", limit=10)
    [path] = re.findall(r' d="([^"]+)"', drawing)
    assert (path.count("M"), path.count("L")) == (2, 1)
    assert "NaN" not in drawing
    assert "Too short" in line_chart([1], [Line("x", "a", [1.0])], unit="")


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.03, 0.04), (1, 1), (9.5, 10), (100, 100), (101, 200), (1300, 2000)]
)
def test_axes_end_at_round_numbers(value, top):
    assert nice_ceiling(value) == pytest.approx(top)


def scrape(tally, catalogue=CATALOGUE):
    registry = CollectorRegistry()
    registry.register(LoadCollector(lambda: tally, lambda: 7, lambda: catalogue))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_the_exporter_shows_what_was_counted():
    tally = Tally()
    for one in (*MIXED, answer(ttft_s=None, gaps_s=())):
        tally.answered(one, OBJECTIVE)
    tally.failed("/v1/chat/completions", "timeout")
    page = scrape(tally)
    endpoint = ("endpoint", "/v1/chat/completions")
    assert page["locust_users",] == 7
    assert page["locust_requests_total", endpoint, ("model", "cheap")] == 4
    assert page["locust_errors_total", endpoint, ("error_type", "timeout")] == 1
    assert page["locust_tokens_total", ("kind", "completion"), ("model", "strong")] == 5
    assert page["locust_decisions_total", ("reason", "threshold")] == 5
    assert page["locust_ttft_seconds_count", ("model", "cheap")] == 3
    assert page["locust_request_duration_seconds_bucket", ("le", "2.5"), ("model", "strong")] == 0
    assert page["locust_request_duration_seconds_bucket", ("le", "5.0"), ("model", "strong")] == 1
    assert page["locust_request_duration_seconds_sum", ("model", "cheap")] == pytest.approx(4.0)
    assert page["locust_router_overhead_seconds_bucket", ("le", "0.005")] == 5
    assert page["locust_cost_dollars_total", ("model", "cheap")] == pytest.approx(80e-6)
    assert page["locust_baseline_dollars_total",] == pytest.approx(1000e-6)


def test_without_prices_there_are_no_dollars():
    tally = Tally()
    tally.answered(answer(), OBJECTIVE)
    assert not [key for key in scrape(tally, None) if "dollars" in key[0]]


def test_progress_is_one_readable_line():
    clock = Clock()
    recorder = Recorder(clock)
    recorder.current.answered(answer(), OBJECTIVE)
    recorder.current.failed("e", "timeout")
    clock.now += 2.0
    window = recorder.cut(1500)
    assert window is not None
    line = progress_line(window)
    assert "1,500 users" in line
    assert "0.5 answers/s" in line
    assert "1 error " in line
