"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from loadtest.load.charts import Line, line_chart

_DASH = "\N{EN DASH}"
_PROMISE_MS = 100.0  # what the router promises to add at most


def render(report: dict[str, Any]) -> str:
    """Return the page."""
    return _template().render(report=report, charts=_charts)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("loadtest.load", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"ms": _ms, "percent": _percent, "dollars": _dollars, "number": _number}
    environment.filters |= {**filters, "figure": _figure, "change": _change}
    return environment.get_template("report.html.j2")


def _charts(run: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]], Markup]]:
    """Return (title, legend, drawing) of the three charts of a run."""
    points = run["timeline"]
    seconds = [point["second"] for point in points]

    def chart(title: str, unit: str, limit: float | None, **lines: tuple[str, str]) -> Any:  # noqa: ANN401 - the tuple above
        drawn = [Line(name, style, [p[key] for p in points]) for key, (name, style) in lines.items()]
        legend = [(line.name, line.style) for line in drawn]
        if limit is not None:
            legend.append((f"{limit:.0f} ms: what the router promises to stay under", "limit"))
        return title, legend, line_chart(seconds, drawn, unit=unit, limit=limit)

    charts = [
        chart("Load", "", None, users=("users", "a"), answers_per_s=("answers/s", "b")),
        chart("Time to the first token", "ms", None, ttft_p50_ms=("p50", "a"), ttft_p95_ms=("p95", "b")),
    ]
    if run["overhead_ms"]:
        charts.append(chart("Router's own overhead", "ms", _PROMISE_MS, overhead_p95_ms=("p95", "b")))
    return charts


def _number(value: float | None, digits: int = 1) -> str:
    return _DASH if value is None else f"{value:,.{digits}f}"


def _ms(value: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:.2%}" if 0 < abs(value) < 0.01 else f"{value:.1%}"


def _dollars(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if abs(value) >= 1 else f"${value:.4f}"


def _change(row: dict[str, Any]) -> str:
    """Return how a row of the comparison differs: in percent where that means something."""
    if row["ratio"] is not None:
        return f"{row['ratio'] - 1:+.0%}"
    if row["difference"] is None:
        return _DASH
    sign = "+" if row["difference"] > 0 else ""
    return sign + _figure(row["difference"], row["unit"])


def _figure(value: float | None, unit: str) -> str:
    """Return a value of the comparison in its unit."""
    if value is None:
        return _DASH
    formats = {"ms": f"{_ms(value)} ms", "%": _percent(value), "$": _dollars(value)}
    return formats.get(unit, _number(value) + unit)
