"""The check's own judgement: what counts as data, what Grafana's variables become, what the table shows."""

from __future__ import annotations

import math
from typing import Any

import pytest

from monitoring.check import synthetic
from monitoring.check.__main__ import Result, table
from monitoring.check.answers import Answer, judge
from monitoring.check.questions import Question, dashboard_questions, every_question
from tests.unit.monitoring.sources import needs_prometheus

NAN = math.nan


@pytest.mark.parametrize(
    ("series", "answer"),
    [
        ([], Answer(0, "no data")),
        ([[NAN, NAN], [NAN]], Answer(2, "all NaN")),
        ([[NAN, 0.0]], Answer(1)),
        ([[NAN], [1.0]], Answer(2)),
    ],
)
def test_data_is_at_least_one_number(series: list[list[float]], answer: Answer) -> None:
    assert judge(series) == answer


def dashboard(*templates: dict[str, Any], expr: str = "up") -> dict[str, Any]:
    targets = [{"refId": "A", "expr": expr}]
    panels = [{"type": "row", "title": "Row"}, {"type": "stat", "title": "Panel", "targets": targets}]
    return {"title": "Board", "templating": {"list": list(templates)}, "panels": panels}


def template(name: str, query: str, value: str) -> dict[str, Any]:
    return {"name": name, "type": "query", "query": query, "allValue": ".*", "current": {"value": value}}


def test_variables_become_what_they_are_when_a_dashboard_is_opened() -> None:
    board = dashboard(
        {"name": "datasource", "type": "datasource"},
        template("model", "label_values(rows, model)", "prompt_classifier"),
        template("version", 'label_values(rows{model="$model"}, version)', "$__all"),
        expr='increase(rows{model="$model", version=~"$version"}[$__range]) / $__range_s - rate(r[$__rate_interval])',
    )
    model, version, panel = dashboard_questions(board)
    asked = {"rate_interval_s": 20, "range_s": 60}
    assert panel.promql(**asked) == (
        'increase(rows{model="prompt_classifier", version=~".*"}[60s]) / 60 - rate(r[20s])'
    )
    assert (model.label, model.promql(**asked)) == ("model", "rows")
    assert (version.label, version.promql(**asked)) == ("version", 'rows{model="prompt_classifier"}')


def test_a_variable_that_nobody_defines_is_an_error() -> None:
    [panel] = dashboard_questions(dashboard(expr='up{job="$job"}'))
    with pytest.raises(KeyError, match="job"):
        panel.promql(rate_interval_s=20, range_s=60)


@pytest.mark.parametrize(
    ("expr", "optional"),
    [
        ("sum(rate(tokens_total[1m]))", {"tokens_total"}),
        ("sum(rate(llm_router_tokens_total[1m]))", set()),
        ("nv_gpu_utilization / nv_cpu_utilization", {"nv_gpu_utilization"}),
        ("max(llm_router_classifier_dollars_per_hour) or vector(0)", {"llm_router_classifier_dollars_per_hour"}),
        ("llm_router_requests_total", set()),
    ],
)
def test_only_what_a_healthy_stack_may_lack_is_optional(expr: str, optional: set[str]) -> None:
    assert Question("place", "title", expr, {}).optional_series() == optional


def test_everything_is_asked() -> None:
    places = [question.place for question in every_question()]
    for place, least in {
        "LLM router": 30,
        "LLM router: savings": 20,
        "LLM router: classifier on Triton": 30,
        "LLM router: load test": 25,
        "rules/slo.yml": 7,
        "rules/nvidia_v1.yml": 22,
    }.items():
        assert places.count(place) >= least
    assert places.count("NVIDIA v1: LLM Router Overview") == 4


@needs_prometheus
def test_made_up_series_answer_every_optional_question() -> None:
    optional = [question for question in every_question() if question.optional_series()]
    assert len(optional) > 40
    panels = [question for question in optional if question.label is None]
    assert synthetic.run([synthetic.case(question) for question in panels], synthetic.SERIES).trouble is None
    assert [q.title for q in optional if q.label is not None and synthetic.ask(q).trouble] == []


@needs_prometheus
@pytest.mark.parametrize("expr", ["nv_gpu_nonsense", "0 * nv_gpu_utilization / 0", "sum(nv_gpu_utilization"])
def test_made_up_series_do_not_answer_nonsense(expr: str) -> None:
    assert synthetic.ask(Question("place", "title", expr, {})).trouble


def test_the_table_names_what_failed_and_marks_what_was_made_up() -> None:
    lines = table(
        [
            Result(Question("Board", "Good", "up", {}), Answer(3), real=True),
            Result(Question("Board", "GPU", "nv_gpu", {}), Answer(0), real=False),
            Result(Question("Other", "Bad", "rate(x[1m])", {}), Answer(0, "no data"), real=True),
        ]
    ).splitlines()
    shown = [" ".join(line.split()) for line in lines if line]
    assert shown == [
        "Board series",
        "Good 3 ok",
        "GPU made up ok",
        "Other series",
        "Bad 0 FAILED: no data",
        "rate(x[1m])",
    ]
