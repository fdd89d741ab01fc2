"""From scores to a model: every kind of policy, its threshold, what it needs and what it may choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.decide.classification import Classification, Labels
from router.decide.policy import Choice, candidates, decide, expected_cost, unmet_needs, with_threshold
from router.errors import InvalidRequest
from router.settings import PolicySettings, Price, TaskMapPolicy, ThresholdPolicy, Tier
from tests.unit.router.examples import (
    FIXED,
    LABELLED,
    LABELS,
    POLICIES,
    TASKS,
    THREE_TIERS,
    TIERS,
    VALUE,
    classification,
    model,
)

probability = st.floats(0, 1)


def never_asked(_: str) -> float | None:
    raise AssertionError("this policy compares no costs")


def about(value: float) -> Any:
    """This number but for rounding, inside a Choice."""
    return pytest.approx(value)


def costs(weak: float | None, strong: float | None) -> Callable[[str], float | None]:
    return {"cheap": weak, "dear": strong}.__getitem__


def needing(need_strong: float) -> Classification:
    """A classification of this need_strong: with p_strong 1, it is 1 - p_weak."""
    return classification(p_weak=1 - need_strong, p_strong=1.0)


@pytest.mark.parametrize(
    ("gain", "chosen"), [(0.0, "cheap"), (0.09, "cheap"), (0.11, "middle"), (0.49, "middle"), (0.51, "dear")]
)
def test_the_highest_tier_that_the_score_reaches_answers(gain: float, chosen: str) -> None:
    choice = decide(THREE_TIERS, [classification(p_weak=1 - gain, p_strong=1.0)], never_asked)
    assert choice == Choice(chosen, "threshold", about(gain), chosen)


def test_a_score_exactly_at_a_tier_belongs_to_it() -> None:
    policy = ThresholdPolicy("p", (("reasoning", 1.0),), (Tier("cheap"), Tier("dear", 0.25)), "dear", "last")
    assert decide(policy, [classification(dimensions=0.25)], never_asked).model == "dear"
    assert decide(policy, [classification(dimensions=0.2499)], never_asked).model == "cheap"


@given(st.lists(probability, min_size=1, max_size=6))
def test_the_hardest_turn_decides_whatever_the_order(needs: list[float]) -> None:
    turns = [needing(need) for need in needs]
    choice = decide(TIERS, turns, never_asked)
    assert choice.score == pytest.approx(max(needs))
    assert choice.model == ("dear" if choice.score is not None and choice.score >= 0.3 else "cheap")
    assert decide(TIERS, turns[::-1], never_asked) == choice


@given(probability, probability, st.floats(-1, 1))
def test_a_harder_prompt_never_gets_a_weaker_model(one: float, other: float, threshold: float) -> None:
    policy = with_threshold(TIERS, threshold)
    easy, hard = (decide(policy, [needing(need)], never_asked).model for need in sorted((one, other)))
    assert (easy, hard) != ("dear", "cheap")


def test_a_weighted_sum_is_compared() -> None:
    policy = dataclasses.replace(TIERS, score=(("need_strong", 0.5), ("reasoning", -0.25)))
    scored = classification(p_weak=0.2, p_strong=1.0, dimensions={"reasoning": 0.4})
    assert decide(policy, [scored], never_asked).score == pytest.approx(0.5 * 0.8 - 0.25 * 0.4)


@pytest.mark.parametrize(
    ("gain", "extra_dollars", "chosen"),
    [
        (0.5, 0.02, "dear"),  # 0.5 x 0.05 = 0.025 buys it
        (0.3, 0.02, "cheap"),
        (0.0, 0.0, "cheap"),  # nothing to gain: no reason to leave the weak one
        (0.0, -0.01, "dear"),  # the strong one is cheaper
    ],
)
def test_expected_value_weighs_the_gain_against_the_extra_cost(gain: float, extra_dollars: float, chosen: str) -> None:
    turns = [classification(0.9, 0.9), classification(p_weak=1 - gain, p_strong=1.0)]
    choice = decide(VALUE, turns, costs(0.1, 0.1 + extra_dollars))
    assert choice == Choice(chosen, "expected_value", about(gain), chosen)


@pytest.mark.parametrize("unknown", [costs(None, 1.0), costs(1.0, None), costs(None, None)])
def test_an_unknown_price_is_never_zero(unknown: Callable[[str], float | None]) -> None:
    choice = decide(VALUE, [classification(0.0, 1.0)], unknown)
    assert choice == Choice("cheap", "unpriced", about(1.0), "cheap")


@pytest.mark.parametrize(
    ("task", "certainty", "chosen"),
    [
        ("Code Generation", 0.9, "dear"),
        ("Chatbot", 0.9, "cheap"),
        ("Rewrite", 0.9, "middle"),
        ("Code Generation", 0.19, "middle"),
        ("Code Generation", 0.2, "dear"),
    ],
)
def test_a_task_has_its_model_and_an_unlisted_or_unsure_one_the_default(
    task: str, certainty: float, chosen: str
) -> None:
    choice = decide(TASKS, [classification(task=task, certainty=certainty)], never_asked)
    assert choice == Choice(chosen, "task", certainty, task)


def test_of_several_turns_the_surest_task_decides_even_when_their_versions_name_tasks_differently() -> None:
    other = dataclasses.replace(LABELS, task_types=LABELS.task_types[::-1])
    unsure = classification(task="Chatbot", certainty=0.5)
    sure = msgspec.structs.replace(classification(task="Code Generation"), labels=other)
    expected = other.task_types[sure.task[0]]
    assert decide(TASKS, [unsure, sure], never_asked).label == expected


def test_a_label_policy_takes_the_argmax_as_an_index_into_its_llms() -> None:
    labels = Labels(task_types=("Code Generation", "Unknown"))

    def scored(*task_type: float) -> Classification:
        return msgspec.structs.replace(classification(labels=Labels()), labels=labels, task_type=task_type)

    assert decide(LABELLED, [scored(1.0, 0.0)], never_asked) == Choice("dear", "task", 1.0, "Code Generation")
    assert decide(LABELLED, [scored(0.0, 1.0)], never_asked) == Choice("cheap", "task", 1.0, "Unknown")
    strict = with_threshold(LABELLED, 0.7)
    assert decide(strict, [scored(0.6, 0.4)], never_asked) == Choice("cheap", "task", 0.6, "Unknown")


def test_a_fixed_policy_looks_at_nothing() -> None:
    assert decide(FIXED, [], never_asked) == Choice("middle", "fixed", None, "middle")


def test_a_threshold_moves_the_upper_tier_or_the_probability_that_a_label_needs() -> None:
    moved = with_threshold(TIERS, 0.9)
    assert isinstance(moved, ThresholdPolicy)
    assert moved.tiers == (Tier("cheap"), Tier("dear", 0.9))
    tasks = with_threshold(TASKS, 0.9)
    assert isinstance(tasks, TaskMapPolicy)
    assert tasks.min_probability == 0.9
    assert TIERS.tiers[1].at == 0.3, "the configured policy itself must stay"


@pytest.mark.parametrize(("policy", "why"), [(THREE_TIERS, "3 tiers"), (VALUE, "cost"), (FIXED, "same model")])
def test_a_policy_without_one_threshold_says_why(policy: PolicySettings, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        with_threshold(policy, 0.5)
    assert refused.value.param == "threshold"
    assert f"'{policy.name}'" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("tiers", ("cheap", "dear")),
        ("three-tiers", ("cheap", "middle", "dear")),
        ("value", ("cheap", "dear")),
        ("tasks", ("dear", "cheap", "middle")),
        ("fixed", ("middle",)),
        ("task_router", ("dear", "cheap")),
    ],
)
def test_candidates_are_all_that_may_answer_each_once(name: str, models: tuple[str, ...]) -> None:
    assert candidates(POLICIES[name]) == models


@given(probability, probability, st.sampled_from(LABELS.task_types), probability, st.sampled_from(sorted(POLICIES)))
def test_a_choice_is_always_among_the_candidates(
    p_weak: float, p_strong: float, task: str, certainty: float, name: str
) -> None:
    scored = classification(p_weak, p_strong, task=task, certainty=certainty)
    if name == LABELLED.name:
        scored = msgspec.structs.replace(scored, task_type=(certainty, 1 - certainty))
    assert decide(POLICIES[name], [scored], costs(0.1, 0.2)).model in candidates(POLICIES[name])


def test_what_a_served_model_lacks_is_said_before_it_is_needed() -> None:
    assert [unmet_needs(policy, LABELS) for policy in POLICIES.values()] == [[]] * len(POLICIES)
    bare = Labels()
    for policy in (TIERS, THREE_TIERS, VALUE):
        [need] = unmet_needs(policy, bare)
        assert need.startswith(f"policies.{policy.name}: ")
        assert "outcome head" in need
    [need] = unmet_needs(TASKS, Labels(task_types=("Chatbot", "Other")))
    assert "Code Generation" in need
    assert "Chatbot, Other" in need
    slip = dataclasses.replace(TASKS, models=(("lost_card", "m"), ("card_los", "m")))
    [need] = unmet_needs(slip, Labels(task_types=("lost_card", "card_lost")))
    assert "'card_los' is not a task of the served model" in need
    assert 'did you mean "card_lost"?' in need
    by_dimension = dataclasses.replace(TIERS, score=(("reasoning", 0.5), ("gain", 0.5)))
    [need] = unmet_needs(by_dimension, dataclasses.replace(LABELS, dimensions=("creativity",)))
    assert "'reasoning'" in need
    assert "creativity" in need
    by_complexity = dataclasses.replace(TIERS, score=(("complexity", 1.0),))
    assert unmet_needs(by_complexity, LABELS) == []
    [need] = unmet_needs(by_complexity, dataclasses.replace(LABELS, dimensions=("creativity", "reasoning")))
    assert "needs contextual_knowledge, domain_knowledge, constraints, few_shots" in need
    [need] = unmet_needs(by_complexity, bare)
    assert "needs a dimensions head; the served model declares none" in need
    assert unmet_needs(FIXED, bare) == unmet_needs(LABELLED, bare) == []


def test_the_expected_cost_counts_both_directions_and_the_request_s_own_limit() -> None:
    priced = model("m", Price(2.0, 10.0, "configuration"), expected_output_tokens=300)
    assert expected_cost(priced, 1000, None) == pytest.approx((1000 * 2 + 300 * 10) / 1e6)
    assert expected_cost(priced, 1000, 100) == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
    assert expected_cost(priced, 1000, 10**400) == pytest.approx((1000 * 2 + 300 * 10) / 1e6)
    assert expected_cost(model("m"), 1000, 100) is None
