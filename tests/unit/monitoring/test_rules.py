"""Rules and alerts: valid, tested, documented."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.monitoring.sources import (
    PROMETHEUS,
    ROOT,
    RULE_FILES,
    TEST_FILES,
    exists,
    metrics_in,
    needs_prometheus,
    rules,
)

ALERTS = list(rules("alert"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
PAGE = (ROOT / "docs" / "monitoring.md").read_text()


def promtool(*arguments: str | Path) -> str:
    told = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def alert_cases(alert: str) -> list[list[dict[str, Any]]]:
    """The alerts that each case of an alert expects."""
    tests = [test for path in TEST_FILES for test in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    return [case["exp_alerts"] for case in cases if case["alertname"] == alert]


@needs_prometheus
def test_the_configuration_and_its_rules_are_valid() -> None:
    told = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert f"{len(RULE_FILES)} rule files found" in told


@needs_prometheus
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_rules_do_what_their_cases_say(path: Path) -> None:
    promtool("test", "rules", path)


@needs_prometheus
def test_a_case_that_is_wrong_fails(tmp_path: Path) -> None:
    text = (PROMETHEUS / "tests" / "alerts_gpu.yml").read_text().replace("../rules", str(PROMETHEUS / "rules"))
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(text.replace("description: 95% is", "description: 94% is"))
    with pytest.raises(AssertionError, match="94%"):
        promtool("test", "rules", wrong)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(alert: dict[str, Any]) -> None:
    cases = alert_cases(alert["alert"])
    assert any(cases), "no case in which it fires"
    assert not all(cases), "no case in which it does not fire"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_tells_what_it_is_and_leads_to_its_section(alert: dict[str, Any]) -> None:
    name, annotations = alert["alert"], alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert annotations["summary"]
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^### {name}\n\n(.*?)(?=^#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/runbook.md has no section {name}"
    assert section.group(1).startswith(f"**{alert['labels']['severity']}** · ")
    assert re.search(r"^- Check", section.group(1), re.MULTILINE)
    assert re.search(r"\bmend\b", section.group(1), re.IGNORECASE)


def test_the_runbook_has_no_section_without_an_alert() -> None:
    assert re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE) == [alert["alert"] for alert in ALERTS]


def test_every_alert_and_every_recorded_name_is_documented_and_no_other() -> None:
    table = PAGE.partition("## Alerts")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [alert["alert"] for alert in ALERTS]
    table = PAGE.partition("## Recording rules")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    documented = {name for cell in first_cells for name in re.findall(r"`([\w:]+)[`{]", cell)}
    assert documented == {rule["record"] for rule in rules("record")}


@pytest.mark.parametrize(
    "rule", [*rules("alert"), *rules("record")], ids=lambda rule: rule.get("alert", rule.get("record"))
)
def test_rules_ask_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    asked = metrics_in(rule["expr"])
    assert asked
    assert [metric for metric in asked if not exists(metric)] == []


def test_targets_are_those_of_nvidia_v1_and_dcgm() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert jobs == {
        "router-controller-metrics": ["router:8085"],
        "router-server-metrics": ["triton:8002"],
        "locust": ["locust:4000"],
        "dcgm": ["dcgm-exporter:9400"],
    }
