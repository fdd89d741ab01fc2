"""Settings, labels and classifications that several tests start from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from router.decide.classification import OUTCOMES, Classification, Labels, Version
from router.settings import (
    DIMENSIONS,
    TASK_TYPES,
    AdminSettings,
    ExpectedValuePolicy,
    FixedPolicy,
    LabelPolicy,
    ModelSettings,
    PolicySettings,
    Price,
    Replica,
    ServerSettings,
    Settings,
    TaskMapPolicy,
    ThresholdPolicy,
    Tier,
    Timeouts,
    TritonSettings,
)

LABELS = Labels(OUTCOMES, TASK_TYPES, DIMENSIONS)


def model(name: str, price: Price | None = None, expected_output_tokens: int = 256) -> ModelSettings:
    return ModelSettings(
        name=name,
        replicas=(Replica("http://127.0.0.1:9/v1"),),
        model=f"vendor/{name}",
        price=price,
        context_limit=None,
        timeouts=Timeouts(),
        expected_output_tokens=expected_output_tokens,
    )


MODELS = {
    "cheap": model("cheap", Price(1.0, 2.0, "configuration")),
    "middle": model("middle", Price(3.0, 9.0, "configuration")),
    "dear": model("dear", Price(10.0, 40.0, "configuration")),
    "unpriced": model("unpriced"),
}

TIERS = ThresholdPolicy(
    "tiers", (("need_strong", 1.0),), (Tier("cheap"), Tier("dear", 0.3)), default_model="dear", conversation="hardest"
)
THREE_TIERS = ThresholdPolicy(
    "three-tiers",
    (("gain", 1.0),),
    (Tier("cheap"), Tier("middle", 0.1), Tier("dear", 0.5)),
    default_model="middle",
    conversation="last",
)
VALUE = ExpectedValuePolicy("value", "cheap", "dear", value=0.05, default_model="cheap", conversation="hardest")
TASKS = TaskMapPolicy(
    "tasks", (("Code Generation", "dear"), ("Chatbot", "cheap")), default_model="middle", min_probability=0.2
)
FIXED = FixedPolicy("fixed", "middle")
LABELLED = LabelPolicy(
    "task_router",
    triton_model="task_router_ensemble",
    llms=(("Code Generation", "dear"), ("Unknown", "cheap")),
    default_model="cheap",
    default_label="Unknown",
)
POLICIES: dict[str, PolicySettings] = {p.name: p for p in (TIERS, THREE_TIERS, VALUE, TASKS, FIXED, LABELLED)}


def settings(policies: Mapping[str, PolicySettings] = POLICIES, **triton: Any) -> Settings:
    """The example models and policies, with some fields of `triton` changed."""
    return Settings(
        server=ServerSettings(),
        admin=AdminSettings(),
        triton=dataclasses.replace(TritonSettings(), **triton),
        models=MODELS,
        policies=policies,
        default_policy="tiers",
        source="router.yaml",
    )


def classification(
    p_weak: float = 0.5,
    p_strong: float = 0.9,
    *,
    task: str = "Chatbot",
    certainty: float = 0.9,
    dimensions: float | Mapping[str, float] = 0.5,
    version: str = "1",
    labels: Labels = LABELS,
    tokens_dropped: int = 0,
) -> Classification:
    """A classification with these marginals, weak and strong as alike as they allow."""
    both = min(p_weak, p_strong)
    outcome = (both, p_strong - both, p_weak - both, 1.0 - max(p_weak, p_strong))
    rest = (1.0 - certainty) / (len(TASK_TYPES) - 1)
    by_name = dimensions if isinstance(dimensions, Mapping) else dict.fromkeys(DIMENSIONS, dimensions)
    return Classification(
        labels=labels,
        version=Version(version),
        outcome=outcome if labels.outcomes else (),
        task_type=tuple(certainty if name == task else rest for name in TASK_TYPES) if labels.task_types else (),
        dimensions=tuple(by_name.get(name, math.nan) for name in DIMENSIONS) if labels.dimensions else (),
        tokens_seen=7,
        tokens_dropped=tokens_dropped,
    )
