import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.labelled import Outcome
from classifier.targets import averaged_targets, outcome_targets

SCORE = st.floats(0, 1)


@pytest.mark.parametrize(
    ("weak", "strong", "outcome"),
    [(1, 1, [1, 0, 0, 0]), (0, 1, [0, 1, 0, 0]), (1, 0, [0, 0, 1, 0]), (0, 0, [0, 0, 0, 1])],
)
def test_plain_outcomes(weak: float, strong: float, outcome: list[float]) -> None:
    assert outcome_targets(np.array([weak]), np.array([strong])).tolist() == [outcome]


@given(SCORE, SCORE)
def test_graded_scores_keep_their_chances(weak: float, strong: float) -> None:
    both, only_strong, only_weak, neither = outcome_targets(np.array([weak]), np.array([strong]))[0]
    assert min(both, only_strong, only_weak, neither) >= 0
    assert both + only_strong + only_weak + neither == pytest.approx(1)
    assert both + only_weak == pytest.approx(weak)
    assert both + only_strong == pytest.approx(strong)


def outcome(weak: float, strong: float, **others: float) -> Outcome:
    return Outcome(weak, strong, {"weak": weak, "strong": strong, **others})


def test_targets_move_towards_pairs_of_models_alike_and_ignore_the_others() -> None:
    # `twin` is right as often as the weak model, but on the other prompt; `average` belongs to neither tier.
    outcomes = [outcome(0, 1, twin=1, average=0), outcome(1, 1, twin=0, average=1), outcome(0, 1, twin=0, average=1)]
    named, half = (averaged_targets(outcomes, ["s"] * 3, share) for share in (0.0, 0.5))
    assert named.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert half.tolist() == [[0.25, 0.75, 0, 0], [0.75, 0.25, 0, 0], [0, 1, 0, 0]]


def test_a_source_without_other_models_keeps_its_targets() -> None:
    alone = [Outcome(0.2, 0.9)]
    assert averaged_targets(alone, ["s"], 1.0) == pytest.approx(averaged_targets(alone, ["s"], 0.0))
