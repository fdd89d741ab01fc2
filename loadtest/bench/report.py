"""The report: a JSON document that keeps every section's newest run, and the Markdown that is made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.bench.lab import Outcome

Document = dict[str, Any]


def section_of(outcome: Outcome, conditions: Mapping[str, object]) -> Document:
    """Return a section as the document has it; `conditions` are `machine`, `busy_before`, `rounds` and `seconds`."""
    return {
        "title": outcome.title,
        **conditions,
        "text": outcome.text,
        "notes": list(outcome.notes),
        "plots": list(outcome.plots),
        "figures": _without_nan(dict(outcome.figures)),
    }


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """JSON has no NaN: what there was nothing to compute from is null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def merged(old: Document, new: Document, order: tuple[str, ...]) -> Document:
    """Return the sections of both in their order; the new one wins."""
    both = {**old, **new}
    return {name: both[name] for name in order if name in both}


def markdown_of(document: Document, stem: str) -> str:
    """Return the report for people; the plots lie beside it, their names begin with `stem`."""
    parts = ["# Bench", "Written by `make bench`; [performance.md](../performance.md) says what is measured and how."]
    for section in document.values():
        parts += [f"## {section['title']}", _conditions(section), section["text"], *section["notes"]]
        parts += [f"![{name}]({stem}-{name}.svg)" for name in section["plots"]]
    return "\n\n".join([*parts, ""])


def _conditions(section: Mapping[str, Any]) -> str:
    machine = section["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Python {machine['python']};"
        f" {section['busy_before']:.0%} busy with other work before the run. {section['rounds']} rounds"
        f" of {section['seconds']} s."
    )


def write(path: Path, new: Document, plots: Mapping[str, str], order: tuple[str, ...]) -> str:
    """Bring new sections into the report at `path` (.json, .md, -NAME.svg); return its Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_suffix(".json")
    document = merged(json.loads(file.read_text()) if file.exists() else {}, new, order)
    text = markdown_of(document, path.name)
    file.write_text(json.dumps(document, indent=2) + "\n")
    path.with_suffix(".md").write_text(text)
    for name, picture in plots.items():
        path.with_name(f"{path.name}-{name}.svg").write_text(picture)
    return text
