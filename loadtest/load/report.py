"""One report of one or two runs: their figures, the generator's floor, and how the runs compare. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

Figures = dict[str, Any]

FORMAT = 1


def make_report(runs: Sequence[tuple[str, Figures]], floor: Figures | None = None) -> Figures:
    """Return the report of titled runs; two are compared, the first with the router and the second without choice."""
    return {
        "format": FORMAT,
        "machine": {"cores": os.cpu_count()},
        "floor": floor,
        "runs": [{"title": title, **figures} for title, figures in runs],
        "comparison": compare(runs[0][1], runs[1][1]) if len(runs) == 2 else None,
    }


def compare(routed: Figures, baseline: Figures) -> list[Figures]:
    """Return rows of {name, unit, routed, baseline, difference, ratio}, None where a figure is missing.

    `ratio` is routed to baseline; shares and overheads, which may be near zero, have the difference alone.
    """
    rows = [_row("Dollars for 1,000 answers", "$", routed, baseline, _SPENT)]
    rows += [_row(name, unit, routed, baseline, (key,)) for name, unit, key in _RATES]
    for key, label in (("ttft", "First token"), ("e2e", "Whole answer")):
        rows += [
            _row(f"{label}, {q}", "ms", routed, baseline, ("latency_ms", key, "all", q)) for q in ("p50", "p95", "p99")
        ]
    for q in ("p50", "p95", "p99"):
        row = _row(f"Router's own overhead, {q}", "ms", routed, baseline, ("overhead_ms", q))
        rows.append({**row, "ratio": None})
    return rows


def _row(name: str, unit: str, routed: Figures, baseline: Figures, path: tuple[str, ...]) -> Figures:
    one, other = _dig(routed, path), _dig(baseline, path)
    return {
        "name": name,
        "unit": unit,
        "routed": one,
        "baseline": other,
        "difference": one - other if one is not None and other is not None else None,
        "ratio": one / other if one is not None and other and unit != "%" else None,
    }


_RATES = (
    ("Answers per second", "/s", "answers_per_s"),
    ("Errors", "%", "error_rate"),
    ("Goodput, share of answers", "%", "goodput_share"),
    ("Output tokens per second", "/s", "tokens_per_s"),
)
_SPENT = ("dollars", "spent_per_1000_answers")


def _dig(figures: Figures, path: tuple[str, ...]) -> float | None:
    value: Any = figures
    for key in path:
        if value is None:
            return None
        value = value.get(key)
    return None if value is None else float(value)


def in_words(report: Figures) -> list[str]:
    """Return the few lines that matter, for a terminal."""
    lines = []
    for run in report["runs"]:
        ttft, overhead, dollars = run["latency_ms"]["ttft"]["all"], run["overhead_ms"], run["dollars"]
        rate = f"{run['answers_per_s']:.1f} answers/s" if run["answers_per_s"] else "no answers"
        lines.append(f"{run['title']}: {run['requests']:,} requests, {_errors(run)}, {rate}{_open(run)}")
        if ttft:
            lines.append(f"  TTFT p50 {ttft['p50']:.0f} ms, p95 {ttft['p95']:.0f} ms, p99 {ttft['p99']:.0f} ms")
        if overhead:
            lines.append(f"  router overhead p50 {overhead['p50']:.1f} ms, p95 {overhead['p95']:.1f} ms")
        if dollars and dollars["saved"] > 0:
            lines.append(
                f"  ${dollars['spent']:.4f} spent, ${dollars['baseline']:.4f} had all gone to "
                f"{dollars['baseline_model']}: {dollars['saved_share']:.0%} saved"
            )
        elif dollars:
            lines.append(f"  ${dollars['spent']:.4f} spent")
        elif run["answers_per_s"]:
            lines.append("  dollars unknown: the server lists no prices for all of these models")
        lines.append(f"  {run['generator']['verdict']}")
    return lines


def _open(run: Figures) -> str:
    return f", {run['in_flight_mean']:.0f} open on average" if run["in_flight_mean"] else ""


def _errors(run: Figures) -> str:
    if not run["errors"]:
        return "0 errors"
    kinds = ", ".join(f"{count} {kind}" for kind, count in run["errors"].items())
    return f"{sum(run['errors'].values())} errors ({kinds})"
