"""What the tests of monitoring/ read: rules, dashboards, and the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards import render
from router.metrics import Metrics

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "monitoring"
PROMETHEUS = MONITORING / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="Prometheus is not installed (apt install prometheus)",
)

# As documented by Triton and by the DCGM exporter.
_TRITON = (
    "nv_inference_(request_(success|failure|duration_us)|(queue|compute_(input|infer|output))_duration_us"
    "|(exec_)?count|pending_request_count)|nv_energy_consumption|nv_cpu_(utilization|memory_(used|total)_bytes)"
    "|nv_gpu_(utilization|memory_(used|total)_bytes|power_(usage|limit))"
)
_DCGM = "DCGM_FI_DEV_(GPU_TEMP|XID_ERRORS)"
_METRIC = re.compile(r"\b(?:llm_router|prompt_classifier|nv|locust|DCGM)_\w+\b|\bup\b|\bllm_router:[\w:]+")


def rules(kind: str) -> Iterator[dict[str, Any]]:
    """Yield every rule of a kind: alert or record."""
    for path in RULE_FILES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if kind in rule)


def dashboards() -> list[dict[str, Any]]:
    """Return the dashboards as their code writes them."""
    return [json.loads(text) for text in render().values()]


def metrics_in(expr: str) -> set[str]:
    """Return the metrics that an expression names; labels and their values are not metrics."""
    without_values = re.sub(r'"[^"]*"', "", expr)
    return set(_METRIC.findall(without_values))


def exists(metric: str) -> bool:
    """Return whether the router, the model, Triton, DCGM, Locust's exporter or a recording rule has it."""
    recorded = {rule["record"] for rule in rules("record")}
    return (
        metric in recorded | _router_samples() | _model_samples() | _locust_samples() | {"up"}
        or re.fullmatch(f"{_TRITON}|{_DCGM}", metric) is not None
    )


def _router_samples() -> set[str]:
    families = (family for one in vars(Metrics()).values() if hasattr(one, "describe") for family in one.describe())
    return {name for family in families for name in _samples(family.name, family.type)}


def _model_samples() -> set[str]:
    source = (ROOT / "triton_models" / "prompt_classifier" / "1" / "model.py").read_text()
    counters = source.partition("COUNTERS = {")[2].partition("}")[0]
    return {f"prompt_classifier_{name}_total" for name in re.findall(r'^    "(\w+)":', counters, re.MULTILINE)}


def _locust_samples() -> set[str]:
    """Read from the source: the exporter makes its metrics only when it is scraped."""
    source = (ROOT / "loadtest" / "load" / "exporter.py").read_text()
    names = re.findall(r'"(locust_\w+)"', source)
    kinds = ("counter", "gauge", "histogram")
    return {sample for name in names for kind in kinds for sample in _samples(name, kind)}


def _samples(name: str, kind: str) -> tuple[str, ...]:
    if kind == "counter":
        return (f"{name}_total",)
    if kind == "histogram":
        return (f"{name}_bucket", f"{name}_sum", f"{name}_count")
    return (name,)
