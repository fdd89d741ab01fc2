"""From a classification to a model. Pure: the same classification and policy give the same choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from router.decide.classification import Classification, Labels
from router.errors import InvalidRequest
from router.settings import (
    COMPLEXITY_WEIGHTS,
    ExpectedValuePolicy,
    FixedPolicy,
    LabelPolicy,
    ModelSettings,
    PolicySettings,
    TaskMapPolicy,
    ThresholdPolicy,
)
from router.settings.yaml_fields import allowed_words


class Choice(msgspec.Struct, frozen=True):
    """The model that a policy chose, why, and the score that it looked at (None when it looked at none).

    `label` is what NVIDIA's `X-Chosen-Classifier` says: the label of a task or label policy, else the model.
    """

    model: str
    reason: str
    score: float | None
    label: str


def candidates(policy: PolicySettings) -> tuple[str, ...]:
    """Return every model that the policy may choose, each once, the default included."""
    match policy:
        case ThresholdPolicy():
            models = [tier.model for tier in policy.tiers]
        case ExpectedValuePolicy():
            models = [policy.weak, policy.strong]
        case TaskMapPolicy():
            models = [model for _, model in policy.models]
        case LabelPolicy():
            models = [model for _, model in policy.llms]
        case FixedPolicy():
            models = [policy.model]
    return tuple(dict.fromkeys([*models, policy.default_model]))


def with_threshold(policy: PolicySettings, threshold: float) -> PolicySettings:
    """Return the policy with a request's own threshold; InvalidRequest when it has nothing to compare with it.

    Threshold policies of two tiers: the score from which the upper tier answers. Task and label policies: the
    probability that a label needs, else the default model answers.
    """
    match policy:
        case ThresholdPolicy(tiers=(lower, upper)):
            return replace(policy, tiers=(lower, replace(upper, at=threshold)))
        case TaskMapPolicy() | LabelPolicy():
            return replace(policy, min_probability=threshold)
        case ThresholdPolicy():
            why = f"it has {len(policy.tiers)} tiers and one threshold fits two"
        case ExpectedValuePolicy():
            why = "it weighs gain against cost"
        case FixedPolicy():
            why = "it always chooses the same model"
    raise InvalidRequest(
        f"Policy '{policy.name}' takes no threshold: {why}. Leave the threshold out.", param="threshold"
    )


def decide(
    policy: PolicySettings,
    classifications: Sequence[Classification],
    cost_of: Callable[[str], float | None],
) -> Choice:
    """Choose from one or more classified turns: the hardest one decides.

    `cost_of(model)` is the dollars that this request is expected to cost there, None where the price is unknown;
    only expected-value policies ask.
    """
    match policy:
        case FixedPolicy():
            return Choice(policy.model, "fixed", None, policy.model)
        case ThresholdPolicy():
            score = max([_weighted(policy.score, c) for c in classifications])
            model = _of_tier(policy, score)
            return Choice(model, "threshold", score, model)
        case ExpectedValuePolicy():
            gain = max(c.gain for c in classifications)
            return _by_expected_value(policy, gain, cost_of)
        case TaskMapPolicy():
            surest = _surest(classifications)
            index, probability = surest.task
            label = surest.labels.task_types[index]
            model = dict(policy.models).get(label, policy.default_model)
            if probability < policy.min_probability:
                model = policy.default_model
            return Choice(model, "task", probability, label)
        case LabelPolicy():
            index, probability = _surest(classifications).task
            if probability < policy.min_probability:
                return Choice(policy.default_model, "task", probability, policy.default_label)
            label, model = policy.llms[index]
            return Choice(model, "task", probability, label)


def _by_expected_value(policy: ExpectedValuePolicy, gain: float, cost_of: Callable[[str], float | None]) -> Choice:
    weak, strong = cost_of(policy.weak), cost_of(policy.strong)
    if weak is None or strong is None:  # what it would cost is unknown, so the answer's quality decides
        return Choice(policy.default_model, "unpriced", gain, policy.default_model)
    model = policy.strong if gain * policy.value > strong - weak else policy.weak
    return Choice(model, "expected_value", gain, model)


def _weighted(score: Sequence[tuple[str, float]], classification: Classification) -> float:
    weighted = 0.0
    for name, weight in score:
        weighted += weight * classification.score(name)
    return weighted


def _of_tier(policy: ThresholdPolicy, score: float) -> str:
    model = policy.tiers[0].model
    for tier in policy.tiers:
        if score >= tier.at:
            model = tier.model
    return model


def _surest(classifications: Sequence[Classification]) -> Classification:
    """Return the turn whose task is most certain (by default only the last turn is given)."""
    return max(classifications, key=lambda c: c.task[1])


def unmet_needs(policy: PolicySettings, labels: Labels) -> list[str]:
    """Say what the policy needs that the served model lacks, one sentence each; empty when it fits."""
    needs: list[str] = []
    match policy:
        case ThresholdPolicy():
            for name, _ in policy.score:
                if name in ("gain", "need_strong", "p_weak", "p_strong", "one_minus_p_weak"):
                    if not labels.outcomes:
                        needs.append(f"score '{name}' needs an outcome head; the served model declares none")
                elif not labels.dimensions:
                    needs.append(f"score '{name}' needs a dimensions head; the served model declares none")
                elif lacking := [one for one in _dimensions_of(name) if one not in labels.dimensions]:
                    has = ", ".join(labels.dimensions)
                    needs.append(f"score '{name}' needs {', '.join(lacking)}; the served model's dimensions are {has}")
        case ExpectedValuePolicy() if not labels.outcomes:
            needs.append("gain needs an outcome head; the served model declares none")
        case TaskMapPolicy():
            if not labels.task_types:
                needs.append("it needs a task head; the served model declares none")
            else:
                unknown = [label for label, _ in policy.models if label not in labels.task_types]
                needs += [
                    f"'{label}' is not a task of the served model; {allowed_words(label, labels.task_types)}"
                    for label in unknown
                ]
    return [f"policies.{policy.name}: {need}." for need in needs]


def _dimensions_of(score: str) -> tuple[str, ...]:
    return tuple(COMPLEXITY_WEIGHTS) if score == "complexity" else (score,)


def expected_cost(model: ModelSettings, prompt_tokens: int, max_output_tokens: int | None) -> float | None:
    """Return the dollars that a request is expected to cost, None when the model's price is unknown.

    `prompt_tokens` as estimated; the output is taken as `expected_output_tokens` of the model, or the request's
    own limit when that is lower.
    """
    if model.price is None:
        return None
    output = min(model.expected_output_tokens, max_output_tokens or math.inf)
    return (prompt_tokens * model.price.input_per_million + output * model.price.output_per_million) / 1e6
