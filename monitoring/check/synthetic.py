"""Asking promtool, on series made up here, what the live stack cannot be asked: its GPU, say."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from monitoring.check.answers import Answer
from monitoring.check.questions import Question
from monitoring.prometheus_server import DIRECTORY, find_program

_RATE_INTERVAL_S, _RANGE_S, _AT = 60, 300, "8m"
_GROWS, _STAYS = "0+15x40", "7x40"

_HISTOGRAMS = ("request_duration", "ttft", "itl", "tpot")
SERIES = {
    'nv_gpu_utilization{gpu_uuid="GPU-1"}': "0.5x40",
    'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"}': _STAYS,
    'nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"}': "80x40",
    'nv_gpu_power_usage{gpu_uuid="GPU-1"}': _STAYS,
    'nv_gpu_power_limit{gpu_uuid="GPU-1"}': _STAYS,
    'nv_energy_consumption{gpu_uuid="GPU-1"}': _GROWS,
    'nv_inference_count{model="prompt_classifier", version="1"}': _GROWS,
    'DCGM_FI_DEV_GPU_TEMP{gpu="0"}': _STAYS,
    'llm_router_requests_total{policy="p", model="m", reason="threshold", outcome="ok"}': _GROWS,
    'llm_router_cost_dollars_total{policy="p", model="m", task="none"}': _GROWS,
    'llm_router_baseline_dollars_total{policy="p", task="none"}': _GROWS,
    'llm_router_unpriced_requests_total{model="m"}': _GROWS,
    'llm_router_usage_unknown_total{model="m"}': _GROWS,
    'llm_router_classifier_dollars_per_hour{model="prompt_classifier"}': _STAYS,
    'llm_router_client_requests_total{client="c", outcome="ok"}': _GROWS,
    'llm_router_client_refusals_total{client="c", reason="rate_limit_exceeded"}': _GROWS,
    'llm_router_client_cost_dollars_total{client="c"}': _GROWS,
    'llm_router_client_budget_left_dollars{client="c"}': _STAYS,
    "locust_users": _STAYS,
    'locust_requests_total{endpoint="/v1/chat/completions", model="m"}': _GROWS,
    'locust_errors_total{endpoint="/v1/chat/completions", error_type="timeout"}': _GROWS,
    'locust_tokens_total{model="m", kind="prompt"}': _GROWS,
    'locust_tokens_total{model="m", kind="completion"}': _GROWS,
    'locust_cost_dollars_total{model="m"}': _GROWS,
    "locust_baseline_dollars_total": _GROWS,
    "locust_good_answers_total": _GROWS,
    'locust_decisions_total{reason="threshold"}': _GROWS,
    'locust_router_overhead_seconds_bucket{le="0.1"}': _GROWS,
    'locust_router_overhead_seconds_bucket{le="+Inf"}': _GROWS,
    **{
        f'locust_{name}_seconds_bucket{{model="m", le="{bound}"}}': _GROWS
        for name in _HISTOGRAMS
        for bound in ("1.0", "+Inf")
    },
}


def ask(question: Question) -> Answer:
    """Return whether the expression gives a number on the made-up series; the series are not counted (0)."""
    if question.label is not None:
        return Answer(0, None if any(name.startswith(question.expr) for name in SERIES) else "no such series")
    return run([case(question)], SERIES)


def case(question: Question) -> dict[str, Any]:
    """Return the `promql_expr_test` case that fails unless some series is a number."""
    expr = question.promql(rate_interval_s=_RATE_INTERVAL_S, range_s=_RANGE_S)
    # Only NaN differs from itself, so this is 1 where at least one series is a number.
    some_number = f"count(({expr}) == ({expr})) > bool 0"
    return {"expr": some_number, "eval_time": _AT, "exp_samples": [{"labels": "{}", "value": 1}]}


def run(cases: list[dict[str, Any]], series: Mapping[str, str]) -> Answer:
    """Run `promql_expr_test` cases with our recording rules on series that have a value every 15 seconds."""
    test = {
        "rule_files": [str(DIRECTORY / "rules" / "*.yml")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": cases,
            }
        ],
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "test.yml"
        file.write_text(yaml.safe_dump(test))
        command = [find_program("promtool"), "test", "rules", str(file)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - promtool
    return Answer(0, None if told.returncode == 0 else (told.stdout + told.stderr).strip())
