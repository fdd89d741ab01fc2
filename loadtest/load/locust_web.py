"""A tab in Locust's web UI with what matters for LLMs, and the full report behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Response, request

from loadtest.load.report import make_report
from loadtest.load.report_html import render

_TAB = "llm"
_LATENCIES = {
    "ttft_p50": "TTFT p50 (ms)",
    "ttft_p95": "TTFT p95 (ms)",
    "itl_p50": "ITL p50 (ms)",
    "e2e_p50": "End to end p50 (ms)",
    "e2e_p95": "End to end p95 (ms)",
}
_COLUMNS = {
    "name": "Model",
    "answers": "# Answers",
    **_LATENCIES,
    "overhead": "Router overhead p95 (ms)",
    "tokens": "Tokens out",
    "dollars": "Dollars",
    "saved": "Saved",
}


def show_llm_tab(web_ui: Any, summary: Callable[[], dict[str, Any]]) -> None:  # noqa: ANN401 - Locust's
    """Add the tab "LLM" and the page /llm-report, both of the run that is going on."""
    web_ui.template_args |= {
        "extended_tabs": [{"title": "LLM", "key": _TAB}],
        "extended_tables": [
            {"key": _TAB, "structure": [{"key": key, "title": title} for key, title in _COLUMNS.items()]}
        ],
    }

    @web_ui.app.route("/llm-report")  # type: ignore[untyped-decorator] # Flask's
    def report() -> str:
        return render(make_report([("This run", summary())]))

    @web_ui.app.after_request  # type: ignore[untyped-decorator] # Flask's
    def add_rows(response: Response) -> Response:
        if request.path == "/stats/requests" and response.is_json:
            rows = {"extended_stats": [{"key": _TAB, "data": _rows(summary())}]}
            response.set_data(json.dumps({**(response.json or {}), **rows}))
        return response


def _rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each model, and one for all of them with the overhead and the savings."""
    latency, models, dollars = figures["latency_ms"], figures["models"], figures["dollars"]
    rows = [
        {
            "name": model,
            "answers": one["answers"],
            **_latencies({name: latency[name]["by_model"].get(model) for name in latency}),
            "tokens": one["completion_tokens"],
            "dollars": "unknown" if one["dollars"] is None else f"{one['dollars']:.4f}",
        }
        for model, one in models.items()
    ]
    together = {
        "name": "(all)",
        "answers": sum(one["answers"] for one in models.values()),
        **_latencies({name: latency[name]["all"] for name in latency}),
        "overhead": _shown((figures["overhead_ms"] or {}).get("p95")),
        "tokens": sum(one["completion_tokens"] for one in models.values()),
        "dollars": f"{dollars['spent']:.4f}" if dollars else "unknown",
        "saved": f"{dollars['saved']:.4f} ({dollars['saved_share']:.0%})" if dollars else "unknown",
    }
    return [*rows, together]


def _latencies(found: dict[str, dict[str, float] | None]) -> dict[str, str]:
    cells = {}
    for key in _LATENCIES:
        name, _, quantile = key.partition("_")
        cells[key] = _shown((found[name] or {}).get(quantile))
    return cells


def _shown(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.1f}"
