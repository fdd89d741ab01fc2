"""An evaluation as a folder to read: report.md, report.json, and the pictures curve.svg and reliability.svg."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from classifier.charts import Axis, Series, around, chart

JSON, PAGE, CURVE, RELIABILITY = "report.json", "report.md", "curve.svg", "reliability.svg"


def write_report(directory: Path, evaluation: Mapping[str, Any], about: str) -> None:
    """Write the folder; `about` says in a sentence what was judged, on what."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / JSON).write_text(json.dumps({"about": about, **evaluation}, indent=2) + "\n", encoding="utf-8")
    (directory / PAGE).write_text(page(evaluation, about), encoding="utf-8")
    routing = evaluation["routing"]
    if routing is not None:
        (directory / CURVE).write_text(cost_quality_curve(routing), encoding="utf-8")
        if routing["reliability"] is not None:
            (directory / RELIABILITY).write_text(reliability_diagram(routing["reliability"]), encoding="utf-8")


def page(evaluation: Mapping[str, Any], about: str) -> str:
    """The report as Markdown."""
    parts = ["# Evaluation", f"{about} Intervals are 95% bootstrap intervals over prompts."]
    if evaluation["routing"] is not None:
        parts += _routing(evaluation["routing"])
    if evaluation["task"] is not None:
        parts += _task(evaluation["task"])
    return "\n\n".join(parts) + "\n"


def cost_quality_curve(routing: Mapping[str, Any]) -> str:
    """Quality against dollars where they are known, else against the share of strong calls."""
    curves, cheap, strong = routing["curves"], routing["always_cheap"], routing["always_strong"]
    in_dollars = "dollars_per_1k" in cheap
    along = "dollars_per_1k" if in_dollars else "strong_share"
    ends = [cheap[along], strong[along]] if in_dollars else [0.0, 1.0]
    order = [name for name in curves if name not in ("random", "prompt length")] + ["prompt length", "random"]
    series = [
        Series(name, curves[name][along], curves[name]["quality"], dashed=name == "random")
        for name in order
        if name in curves
    ]
    series.append(Series("always cheap, strong", ends, [cheap["quality"], strong["quality"]], dots=True))
    shown = [quality for one in series for quality in one.y]
    costs = around([value for one in series for value in one.x])
    x = Axis("dollars a thousand prompts", *costs, "{:.3g}") if in_dollars else Axis("strong calls", 0, 1, "{:.0%}")
    return chart("Cost and quality", x, Axis("mean score of the answers", *around(shown), "{:.3g}"), series)


def reliability_diagram(bins: list[dict[str, float]]) -> str:
    """The weak model's observed score against the predicted one; a dot's area is its share of the prompts."""
    most = max(one["rows"] for one in bins)
    dots = Series(
        "prompts",
        [one["predicted"] for one in bins],
        [one["observed"] for one in bins],
        dots=True,
        weights=[one["rows"] / most for one in bins],
    )
    honest = Series("as predicted", [0, 1], [0, 1], dashed=True)
    x, y = Axis("predicted p_weak", 0, 1, "{:.1f}"), Axis("observed score of the weak model", 0, 1, "{:.1f}")
    return chart("Reliability", x, y, [dots, honest])


def _routing(routing: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Routing, {routing['rows']:,} prompts"
    yield "\n".join(_router_table(routing))
    yield f"![cost and quality]({CURVE})"
    if routing["reliability"] is not None:
        yield f"![reliability]({RELIABILITY})"
    if len(routing["sources"]) > 1:
        yield "## By source"
        yield "\n".join(_source_table(routing["sources"]))


def _router_table(routing: Mapping[str, Any]) -> Iterator[str]:
    cheap, strong = routing["always_cheap"], routing["always_strong"]
    columns = {
        "APGR": ("apgr", "{:.3f}"),
        "CPT50": ("cpt50", "{:.1%}"),
        "CPT80": ("cpt80", "{:.1%}"),
        "strong calls for 95% quality": ("strong_for_95", "{:.1%}"),
        "AUC": ("auc", "{:.3f}"),
        "ECE": ("ece", "{:.3f}"),
    }
    if "dollars_per_1k" in cheap:
        columns["dollars a thousand for 95% quality"] = ("dollars_for_95", "{:.3f}")
    yield f"| router | mean score | {' | '.join(columns)} |"
    yield "| --- " * (len(columns) + 2) + "|"
    for name, always in (("always cheap", cheap), ("always strong", strong)):
        dollars = f"{always['dollars_per_1k']:.3f} for all" if "dollars_per_1k" in always else ""
        yield f"| {name} | {always['quality']:.3f} | {'| ' * (len(columns) - 1)}{dollars} |"
    for name, found in routing["routers"].items():
        cells = [_cell(found.get(key), form) for key, form in columns.values()]
        yield f"| {name} | {found['quality_at_half']:.3f} at half | {' | '.join(cells)} |"


def _source_table(sources: Mapping[str, Any]) -> Iterator[str]:
    names = next(iter(sources.values()))["routers"]
    headings = " | ".join(f"APGR of {name}" for name in names)
    yield f"| source | prompts | always cheap | always strong | {headings} | ECE |"
    yield "| --- " * (len(names) + 5) + "|"
    for source, found in sources.items():
        routers = found["routers"]
        apgr = " | ".join(_cell(one["apgr"], "{:.3f}") for one in routers.values())
        ece = next((_cell(one["ece"], "{:.3f}") for one in routers.values() if "ece" in one), "")
        label = source or "(not told)"
        levels = f"{found['always_cheap']:.3f} | {found['always_strong']:.3f}"
        yield f"| {label} | {found['rows']:,} | {levels} | {apgr} | {ece} |"


def _task(task: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Task type, {task['rows']:,} prompts"
    accuracy = _cell(task["accuracy"], "{:.1%}")
    yield f"Right on {accuracy}; always the most frequent label would be right on {task['majority']:.1%}."
    confusion = task["confusion"]
    said = sorted({label for row in confusion.values() for label in row})
    rows = [f"| labelled, down; predicted, across | {' | '.join(said)} |", "| --- " * (len(said) + 1) + "|"]
    for given, row in confusion.items():
        rows.append(f"| {given} | {' | '.join(str(row.get(label, '')) for label in said)} |")
    yield "\n".join(rows)


def _cell(found: Mapping[str, float | None] | None, form: str) -> str:
    if found is None or found["value"] is None:
        return ""
    if found["low"] is None:
        return form.format(found["value"])
    return f"{form.format(found['value'])} [{form.format(found['low'])}, {form.format(found['high'])}]"
