"""What is to be asked: every panel's and variable's query, NVIDIA v1's queries, every recorded name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitoring.prometheus_server import DIRECTORY as PROMETHEUS

_MONITORING = Path(__file__).parents[1]
DASHBOARDS = _MONITORING / "grafana" / "dashboards"
NVIDIA_QUERIES = _MONITORING / "nvidia_v1_queries.txt"

# Series that are not there without a GPU, its price, a running load test, clients, or an LLM that hides prices or
# tokens.
_OPTIONAL = re.compile(
    r"\b(nv_gpu_\w+|nv_energy_\w+|DCGM_\w+|locust_\w+|http_requests_total|http_errors_total|tokens_total"
    r"|llm_router_(?:unpriced_requests_total|usage_unknown_total|classifier_dollars_per_hour|client_\w+))\b"
)
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")


@dataclass(frozen=True, slots=True)
class Question:
    """One PromQL expression, with Grafana's own variables still in it, and the values of the dashboard's.

    `label`: ask for that label's values among the series that `expr` selects, as a dashboard's variable does.
    """

    place: str
    title: str
    expr: str
    variables: Mapping[str, str]
    label: str | None = None

    def promql(self, *, rate_interval_s: int, range_s: int) -> str:
        """Return the expression as Grafana would send it."""
        values = {
            "__rate_interval": f"{rate_interval_s}s",
            "__range_s": str(range_s),
            "__range": f"{range_s}s",
            **self.variables,
        }
        return re.sub(r"\$(\w+)", lambda found: values[found.group(1)], self.expr)

    def optional_series(self) -> frozenset[str]:
        """Return the metrics in it that a healthy installation may lack."""
        return frozenset(_OPTIONAL.findall(self.expr))


def every_question() -> list[Question]:
    """Return all that a finished installation must be able to answer."""
    dashboards = [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]
    of_dashboards = [question for dashboard in dashboards for question in dashboard_questions(dashboard)]
    return [*of_dashboards, *_nvidia_questions(), *_recorded_names()]


def dashboard_questions(dashboard: Mapping[str, Any]) -> Iterator[Question]:
    """Yield a question for each query of each panel, and for each variable."""
    place, templates = dashboard["title"], dashboard["templating"]["list"]
    values = {template["name"]: _value(template) for template in templates if template["type"] == "query"}
    for template in templates:
        if template["type"] == "query":
            found = _LABEL_VALUES.fullmatch(template["query"])
            if found is None:
                raise ValueError(
                    f"{place}: variable {template['name']}: {template['query']!r} is not label_values(...)"
                )
            yield Question(place, f"(variable ${template['name']})", found["selector"], values, found["label"])
    for panel in dashboard["panels"]:
        targets = panel.get("targets", [])
        for target in targets:
            legend = f" [{target['refId']}]" if len(targets) > 1 else ""
            yield Question(place, panel["title"] + legend, target["expr"], values)


def _value(template: Mapping[str, Any]) -> str:
    """Return what the variable stands for when the dashboard is opened."""
    value = template["current"]["value"]
    return str(template["allValue"] if value == "$__all" else value)


def _nvidia_questions() -> Iterator[Question]:
    for line in NVIDIA_QUERIES.read_text().splitlines():
        if line and not line.startswith("#"):
            title, expr = line.split(" | ", 1)
            yield Question("NVIDIA v1: LLM Router Overview", title, expr, {})


def _recorded_names() -> Iterator[Question]:
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        rules = (rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"])
        for name in dict.fromkeys(rule["record"] for rule in rules if "record" in rule):
            yield Question(f"rules/{path.name}", name, name, {})
