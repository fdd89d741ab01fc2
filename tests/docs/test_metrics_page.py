"""docs/metrics.md lists every metric that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from router.metrics import Metrics
from tests.docs.snippets import REPOSITORY

PAGE = (REPOSITORY / "docs" / "metrics.md").read_text()


def test_every_router_metric_is_documented_with_its_type_and_labels() -> None:
    documented = {}
    for line in PAGE.splitlines():
        if line.startswith("| `llm_router_"):
            name, kind, labels, _ = (cell.strip() for cell in line.strip("|").split("|"))
            documented[name.strip("`")] = (kind, tuple(label.strip() for label in labels.split(",") if label.strip()))
    metrics = Metrics()
    real = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            tuple(attribute._labelnames),
        )
        for attribute in vars(metrics).values()
        if hasattr(attribute, "describe")
        for family in attribute.describe()
    }
    assert documented == real


def test_every_metric_of_the_model_is_documented() -> None:
    model = Path(REPOSITORY / "triton_models" / "prompt_classifier" / "1" / "model.py").read_text()
    counters = model.partition("COUNTERS = {")[2].partition("}")[0]
    real = {f"prompt_classifier_{name}_total" for name in re.findall(r'^    "(\w+)":', counters, re.MULTILINE)}
    assert real == set(re.findall(r"prompt_classifier_\w+_total", PAGE))
