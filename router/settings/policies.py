"""The policies of the configuration file, one reader for each type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast, get_args

from router.settings.types import (
    GAIN_SHARE,
    SCORE_NAMES,
    Conversation,
    ExpectedValuePolicy,
    FixedPolicy,
    LabelPolicy,
    ModelSettings,
    PolicySettings,
    TaskMapPolicy,
    ThresholdPolicy,
    Tier,
)
from router.settings.yaml_fields import Check, Section, allowed_words, kind, read_number, read_text
from router.settings.yaml_nodes import join_path, shown

Models = Mapping[str, ModelSettings]

DEFAULT_LABELS = ("Unknown", "No-Label-Reason", "Other")
"""What a label policy takes for "I do not know", the first that it has."""


def read_policy(name: str, section: Section, models: Models) -> PolicySettings | None:
    """Read one policy; None when its type is missing or unknown, which is noted."""
    read = _READERS.get(section.choice("type", tuple(_READERS)))
    if read is None:
        return None
    policy = read(name, section, models)
    if section.get("fallbacks") is not None:
        policy = replace(policy, fallbacks=section.words("fallbacks", check=_known(models)))
    section.close()
    return policy


def _threshold(name: str, section: Section, models: Models) -> ThresholdPolicy:
    score = _score(section)
    tiers = _tiers(section, score, models)
    return ThresholdPolicy(
        name=name,
        score=score,
        tiers=tiers,
        default_model=_model(section, "default_model", models, tiers[-1].model if tiers else ""),
        conversation=_conversation(section, "hardest"),
    )


def _expected_value(name: str, section: Section, models: Models) -> ExpectedValuePolicy:
    weak = _model(section, "weak", models)
    strong = _model(section, "strong", models)
    for key, model in (("weak", weak), ("strong", strong)):
        node = section.get(key)
        if node is not None and model in models and models[model].price is None:
            advice = f"set {join_path('models', model)}.price, which this policy compares"
            section.problems.add(node, f"the price of {shown(model)} is unknown; {advice}")
    if weak and weak == strong:
        section.problems.add(section.node, f"weak and strong are both {shown(weak)}; use type: fixed")
    return ExpectedValuePolicy(
        name=name,
        weak=weak,
        strong=strong,
        value=section.number("value", above=0),
        default_model=_model(section, "default_model", models, strong),
        conversation=_conversation(section, "hardest"),
    )


def _task_map(name: str, section: Section, models: Models) -> TaskMapPolicy:
    mapped = section.section("models")
    section.require("models")
    # Which tasks there are, the served version says: the router holds these against it when it starts.
    pairs = [(task, read_text(node, section.problems, check=_known(models))) for task, node in mapped.names()]
    return TaskMapPolicy(
        name=name,
        models=tuple(pairs),
        default_model=_model(section, "default_model", models),
        conversation=_conversation(section, "last"),
        min_probability=section.number("min_probability", 0.0, least=0, most=1),
    )


def _fixed(name: str, section: Section, models: Models) -> FixedPolicy:
    return FixedPolicy(name, _model(section, "model", models))


def _label(name: str, section: Section, models: Models) -> LabelPolicy:
    llms: dict[str, str] = {}
    for node in section.entries("llms"):
        entry = Section(node, section.problems)
        label = entry.text("label")
        if label in llms:
            section.problems.add(node, f"the label {shown(label)} is given twice; keep one")
        llms[label] = _model(entry, "model", models)
        entry.close()
    guess = next((label for label in DEFAULT_LABELS if label in llms), next(iter(llms), ""))
    unknown = _one_of(llms, "is not a label of this policy")
    default_label = section.text("default_label", guess, check=unknown)
    return LabelPolicy(
        name=name,
        triton_model=section.text("triton_model"),
        llms=tuple(llms.items()),
        default_model=_model(section, "default_model", models, llms.get(default_label, "")),
        default_label=default_label,
        conversation=_conversation(section, "last"),
        min_probability=section.number("min_probability", 0.0, least=0, most=1),
    )


_READERS: dict[str, Callable[[str, Section, Models], PolicySettings]] = {
    ThresholdPolicy.kind: _threshold,
    ExpectedValuePolicy.kind: _expected_value,
    TaskMapPolicy.kind: _task_map,
    FixedPolicy.kind: _fixed,
    LabelPolicy.kind: _label,
}


def _score(section: Section) -> tuple[tuple[str, float], ...]:
    """Read `score: need_strong` or `score: {need_strong: 0.7, reasoning: 0.3}`."""
    node = section.require("score")
    if node is None:
        return ()
    known = _one_of(SCORE_NAMES, "is not a score")
    if isinstance(node.value, str):
        name = read_text(node, section.problems, check=known)
        return ((name, 1.0),) if name else ()
    if not isinstance(node.value, dict) or not node.value:
        section.problems.add(node, f"must be a score's name, or a mapping of names to weights; not {kind(node)}")
        return ()
    weights = []
    for name, weight in node.value.items():
        complaint = known(name)
        if complaint is not None:
            section.problems.add(weight, f"{shown(name)} {complaint}")
            continue
        value = read_number(weight, section.problems, 1.0)
        if value == 0:
            section.problems.add(weight, "a weight of 0 does nothing; remove it")
        weights.append((name, value))
    return tuple(weights)


def _tiers(section: Section, score: tuple[tuple[str, float], ...], models: Models) -> tuple[Tier, ...]:
    nodes = section.entries("tiers")
    if len(nodes) == 1:
        section.problems.add(nodes[0], "a threshold needs two tiers or more; for one model use type: fixed")
    low, high = score_range(score)
    tiers: list[Tier] = []
    for index, node in enumerate(nodes):
        entry = Section(node, section.problems)
        model = _model(entry, "model", models)
        if index == 0:
            start = entry.get("from")
            if start is not None:
                section.problems.add(start, "the first tier takes every score below the second; remove `from`")
            tiers.append(Tier(model))
        else:
            at = entry.number("from", least=low, most=high) if score else entry.number("from")
            start = entry.get("from")
            if start is not None and at <= tiers[-1].at:
                section.problems.add(start, f"must be over the tier before it ({tiers[-1].at:g})")
            tiers.append(Tier(model, at))
        entry.close()
    return tuple(tiers)


def score_range(score: tuple[tuple[str, float], ...]) -> tuple[float, float]:
    """Return the lowest and highest value that a weighted sum of scores can take."""
    # need_strong is made of gain (-1..1) and 1 - p_weak (0..1); where gain is -1, p_weak is 1.
    # few_shots is a number of examples in NVIDIA's own model, and part of its complexity.
    limits = {
        "gain": (-1.0, 1.0),
        "need_strong": (-GAIN_SHARE, 1.0),
        "few_shots": (0.0, 5.0),
        "complexity": (0.0, 1.2),
    }
    ends = [
        sorted((weight * limits.get(name, (0.0, 1.0))[0], weight * limits.get(name, (0.0, 1.0))[1]))
        for name, weight in score
    ]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def _model(section: Section, key: str, models: Models, default: str | None = None) -> str:
    return section.text(key, default, check=_known(models))


def _conversation(section: Section, default: Conversation) -> Conversation:
    return cast("Conversation", section.choice("conversation", get_args(Conversation), default))


def _known(models: Models) -> Check:
    return _one_of(models, "is not a configured model")


def _one_of(allowed: Mapping[str, object] | tuple[str, ...], complaint: str) -> Check:
    def check(value: str) -> str | None:
        return None if value in allowed else f"{complaint}; {allowed_words(value, allowed)}"

    return check
