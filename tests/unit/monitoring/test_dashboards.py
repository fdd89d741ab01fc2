"""Dashboards: as their code writes them, well-formed, readable, asking for what exists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.check.questions import dashboard_questions
from monitoring.dashboards import DIRECTORY, render
from monitoring.dashboards.__main__ import main
from tests.unit.monitoring.sources import MONITORING, dashboards, exists, metrics_in, needs_prometheus

DASHBOARDS = dashboards()
GRID = 24
NARROWEST = {"stat": 4, "timeseries": 8, "table": 8}
UNITS = {"reqps", "percentunit", "s", "short", "currencyUSD", "bytes", "watt", "celsius", "joule"}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def panel_cases() -> Iterator[Any]:
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            yield pytest.param(panel, id=f"{dashboard['uid']}/{panel['title']}")


def variables(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard["uid"])
each_panel = pytest.mark.parametrize("panel", list(panel_cases()))


def test_the_files_are_what_the_code_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out
    assert set(DIRECTORY.glob("*.json")) == set(render())


def test_a_file_that_differs_from_its_code_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = tmp_path / "router.json"
    edited.write_text("{}\n")
    monkeypatch.setattr("monitoring.dashboards.__main__.render", lambda: {edited: '{"title": "Router"}\n'})
    assert main(["--check"]) == 1
    assert "router.json is out of date; run python -m monitoring.dashboards" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_the_four_dashboards_have_their_places() -> None:
    assert [(dashboard["uid"], dashboard["title"]) for dashboard in DASHBOARDS] == [
        ("llm-router", "LLM router"),
        ("llm-router-savings", "LLM router: savings"),
        ("llm-router-classifier", "LLM router: classifier on Triton"),
        ("llm-router-loadtest", "LLM router: load test"),
    ]


@each_dashboard
def test_a_dashboard_is_classic_read_only_and_linked_to_its_sisters(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] == 42
    assert dashboard["editable"] is False
    assert dashboard["description"]
    [link] = dashboard["links"]
    assert (link["type"], link["tags"], link["includeVars"], link["keepTime"]) == (
        "dashboards",
        ["llm-router"],
        True,
        True,
    )
    assert dashboard["tags"] == link["tags"]


@each_dashboard
def test_a_dashboard_asks_for_its_data_source_and_offers_variables(dashboard: dict[str, Any]) -> None:
    offered = variables(dashboard)
    source = offered.pop("datasource")
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")
    wanted = {
        "llm-router": ["policy", "model"],
        "llm-router-savings": ["policy", "model"],
        "llm-router-classifier": ["model", "version"],
        "llm-router-loadtest": ["model"],
    }
    assert list(offered) == wanted[dashboard["uid"]]
    expressions = " ".join(target["expr"] for panel in panels(dashboard) for target in panel["targets"])
    for name, variable in offered.items():
        assert variable["datasource"]["uid"] == "${datasource}"
        assert variable["refresh"] == 2, "must follow the time range"
        assert variable["query"] == variable["definition"]
        assert f"${name}" in expressions, f"{name} is offered and used nowhere"


@each_dashboard
def test_panels_fill_their_rows_side_by_side(dashboard: dict[str, Any]) -> None:
    lines: dict[int, list[dict[str, Any]]] = {}
    for panel in dashboard["panels"]:
        lines.setdefault(panel["gridPos"]["y"], []).append(panel)
    below = 0
    for y, line in sorted(lines.items()):
        assert y == below, "a gap, or an overlap"
        assert len({panel["gridPos"]["h"] for panel in line}) == 1
        x = 0
        for panel in line:
            assert panel["gridPos"]["x"] == x
            x += panel["gridPos"]["w"]
        assert x == GRID
        below = y + line[0]["gridPos"]["h"]


@each_dashboard
def test_ids_and_titles_are_unique(dashboard: dict[str, Any]) -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in dashboard["panels"]]
        assert len(values) == len(set(values))


@each_panel
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["gridPos"]["w"] >= NARROWEST[panel["type"]], "too narrow for 1366 pixels"


@each_panel
def test_a_panel_asks_properly(panel: dict[str, Any]) -> None:
    targets = panel["targets"]
    assert targets
    assert len({target["refId"] for target in targets}) == len(targets)
    for target in targets:
        expr = target["expr"]
        windows = re.findall(r"\b(rate|irate|increase|avg_over_time)\([^\[]*\[([^\]]+)\]", expr)
        for function, window in windows:
            assert window == ("$__rate_interval" if function in ("rate", "irate") else "$__range")
        assert len(windows) == expr.count("["), "a range without a function that it belongs to"
        outside = re.sub(r"(rate|increase)\(\w+", "", expr)
        raw = re.findall(r"\w+_(?:total|bucket|sum)\b|nv_inference_(?!pending)\w+|nv_energy_\w+", outside)
        assert raw == [], "a counter that is shown as it is"
        if panel["type"] == "timeseries":
            assert target["legendFormat"] != "__auto"


@each_panel
def test_a_panel_asks_for_metrics_that_exist(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        asked = metrics_in(target["expr"])
        assert asked
        assert [metric for metric in asked if not exists(metric)] == []


@needs_prometheus
def test_every_query_is_promql(tmp_path: Path) -> None:
    questions = [q for dashboard in DASHBOARDS for q in dashboard_questions(dashboard)]
    expressions = [question.promql(rate_interval_s=20, range_s=1800) for question in questions]
    file = tmp_path / "rules.yml"
    records = [{"record": f"q{number}", "expr": expr} for number, expr in enumerate(expressions)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))
    told = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert len(records) > 100
    assert f"{len(records)} rules found" in told.stdout


def test_the_limit_of_the_overhead_is_drawn_wherever_it_is_charted() -> None:
    charted = [
        panel
        for dashboard in DASHBOARDS
        for panel in panels(dashboard)
        if panel["type"] == "timeseries" and "overhead" in panel["title"].lower()
    ]
    assert len(charted) == 2
    for panel in charted:
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1] == {"color": "red", "value": 0.1}
        assert panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] == {"mode": "dashed"}


def test_grafana_is_given_everything() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {source["uid"] for source in sources} == {"prometheus", "f2BSnsdNz", "au8um3KHz"}
    assert {source["url"] for source in sources} == {"http://prometheus:9090"}
    assert [source["uid"] for source in sources if source.get("isDefault")] == ["prometheus"]
    scrape_interval = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())["global"][
        "scrape_interval"
    ]
    assert {source["jsonData"]["timeInterval"] for source in sources} == {scrape_interval}
    [provider] = yaml.safe_load((provisioning / "dashboards" / "llm-router.yml").read_text())["providers"]
    home = re.search(
        r"^default_home_dashboard_path = (.+)$", (MONITORING / "grafana" / "grafana.ini").read_text(), re.M
    )
    assert home is not None
    assert Path(home.group(1)) == Path(provider["options"]["path"]) / "router.json"
    assert (DIRECTORY / "router.json").exists()
