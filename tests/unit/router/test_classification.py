"""The numbers that policies look at, from the classifier's probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier import metrics as offline
from router.decide.classification import OUTCOMES, Classification, Labels, Version
from router.settings import DIMENSIONS, SCORE_NAMES, TASK_TYPES
from tests.unit.router.examples import classification

weights = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda values: sum(values) > 0.01)


def of(outcome: tuple[float, ...], order: tuple[str, ...] = OUTCOMES) -> Classification:
    return Classification(Labels(order), Version("1"), outcome)


def test_scores_are_the_marginals_of_the_four_outcomes() -> None:
    scored = of((0.3, 0.4, 0.1, 0.2))
    assert scored.p_weak == pytest.approx(0.4)
    assert scored.p_strong == pytest.approx(0.7)
    assert scored.gain == pytest.approx(0.3)
    assert scored.need_strong == pytest.approx(0.75 * 0.3 + 0.25 * 0.6)
    assert scored.score("one_minus_p_weak") == pytest.approx(0.6)


@given(weights, st.permutations(OUTCOMES))
def test_scores_stay_in_their_ranges_and_follow_the_labels_not_the_positions(
    values: list[float], order: list[str]
) -> None:
    outcome = tuple(value / sum(values) for value in values)
    scored = of(outcome)
    moved = of(tuple(outcome[OUTCOMES.index(label)] for label in order), tuple(order))
    for name in ("gain", "need_strong", "p_weak", "p_strong", "one_minus_p_weak"):
        assert moved.score(name) == pytest.approx(scored.score(name))
    slack = 1e-9
    assert -slack <= scored.p_weak <= 1 + slack
    assert -slack <= scored.p_strong <= 1 + slack
    assert -1 - slack <= scored.gain <= 1 + slack
    assert -0.75 - slack <= scored.need_strong <= 1 + slack
    assert scored.need_strong == pytest.approx(float(offline.need_strong(np.array(outcome))))
    assert scored.gain == pytest.approx(outcome[1] - outcome[2])


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_every_name_that_a_configuration_may_say_is_a_score(name: str) -> None:
    scored = classification(dimensions={dimension: i / 10 for i, dimension in enumerate(DIMENSIONS)})
    assert isinstance(scored.score(name), float)
    if name in DIMENSIONS:
        assert scored.score(name) == DIMENSIONS.index(name) / 10


def test_complexity_is_nvidia_s_sum_of_the_dimensions() -> None:
    one = dict.fromkeys(DIMENSIONS, 1.0)
    assert classification(dimensions=one).score("complexity") == pytest.approx(1.0)
    asked = {**dict.fromkeys(DIMENSIONS, 0.0), "creativity": 0.5, "reasoning": 1.0, "few_shots": 3.0}
    assert classification(dimensions=asked).score("complexity") == pytest.approx(0.35 * 0.5 + 0.25 + 0.05 * 3)


def test_a_score_whose_head_is_absent_is_an_error_and_no_number() -> None:
    without = Classification(Labels(), Version("1"))
    for name in SCORE_NAMES:
        with pytest.raises(ValueError, match=r"head|not in tuple"):
            without.score(name)


def test_the_task_is_the_likeliest() -> None:
    index, probability = classification(task="Rewrite", certainty=0.8).task
    assert (TASK_TYPES[index], probability) == ("Rewrite", 0.8)


def test_everything_known_is_described_and_a_missing_head_is_null() -> None:
    described = classification(0.5, 0.9, task="Rewrite", tokens_dropped=3).described()
    assert json.loads(json.dumps(described)) == described
    assert list(described["outcome"]) == list(OUTCOMES)
    assert described["scores"]["gain"] == pytest.approx(0.4)
    assert described["task"] == "Rewrite"
    assert list(described["task_type"]) == list(TASK_TYPES)
    assert list(described["dimensions"]) == list(DIMENSIONS)
    assert (described["tokens_seen"], described["tokens_dropped"]) == (7, 3)

    bare = Classification(Labels(), Version("1")).described()
    assert {key: bare[key] for key in ("outcome", "scores", "task_type", "task", "dimensions")} == dict.fromkeys(
        ("outcome", "scores", "task_type", "task", "dimensions")
    )
