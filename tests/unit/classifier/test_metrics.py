import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.metrics import (
    apgr,
    auc,
    bootstrap_apgr,
    call_share_for_pgr,
    call_share_for_quality,
    curve,
    ece,
    need_strong,
    report,
)

WEAK = np.array([1.0, 0.0, 1.0, 0.0])
STRONG = np.array([1.0, 1.0, 1.0, 1.0])
PERFECT = np.array([0.0, 1.0, 0.0, 1.0])


def test_perfect_score_recovers_the_gap_with_the_calls_that_help() -> None:
    routed = curve(PERFECT, WEAK, STRONG)
    assert routed.quality.tolist() == [0.5, 0.75, 1.0, 1.0, 1.0]
    assert apgr(routed) == pytest.approx(0.75)  # 1/4 * (1/4 + 3/4 + 1 + 1)
    assert call_share_for_pgr(routed, 0.5) == 0.25
    assert call_share_for_pgr(routed, 0.8) == 0.5
    assert call_share_for_quality(routed, 0.95) == 0.5


def test_reversed_score_is_the_mirror_image() -> None:
    assert apgr(curve(-PERFECT, WEAK, STRONG)) == pytest.approx(0.25)
    assert call_share_for_pgr(curve(-PERFECT, WEAK, STRONG), 0.5) == 0.75


def test_random_score_has_apgr_one_half() -> None:
    rng = np.random.default_rng(1)
    weak, strong = (rng.random(20_000) < 0.5).astype(float), (rng.random(20_000) < 0.8).astype(float)
    assert apgr(curve(rng.random(20_000), weak, strong)) == pytest.approx(0.5, abs=0.02)


def test_equal_scores_count_with_the_mean_of_their_ties_whatever_their_order() -> None:
    assert apgr(curve(np.zeros(4), WEAK, STRONG)) == pytest.approx(0.5)
    order = [3, 0, 2, 1]
    score = np.array([1.0, 1.0, 0.0, 0.0])
    assert apgr(curve(score, WEAK, STRONG)) == apgr(curve(score[order], WEAK[order], STRONG[order]))


def test_without_a_gap_pgr_is_undefined_and_nothing_warns() -> None:
    figures = report(PERFECT, WEAK, WEAK, rounds=5)
    assert np.isnan([figures.apgr.value, figures.cpt50, figures.auc]).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    score = np.array([float(value) for value, _ in rows])
    positive = np.array([label for _, label in rows])
    pairs = [(p > n) + (p == n) / 2 for p in score[positive] for n in score[~positive]]
    if pairs:
        assert auc(score, positive) == pytest.approx(np.mean(pairs))
    else:
        assert np.isnan(auc(score, positive))


def test_ece_is_zero_when_predictions_come_true_and_the_gap_when_they_do_not() -> None:
    assert ece(np.array([0.25] * 4), np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0)
    assert ece(np.array([1.0, 1.0]), np.array([0.0, 1.0])) == pytest.approx(0.5)


def test_bootstrap_interval_holds_the_value_and_narrows_with_more_prompts() -> None:
    rng = np.random.default_rng(2)

    def width(n: int) -> float:
        weak = (rng.random(n) < 0.5).astype(float)
        interval = bootstrap_apgr(rng.random(n) - weak / 4, weak, np.ones(n), rounds=200)
        assert interval.low < interval.value < interval.high
        return interval.high - interval.low

    assert width(4000) < width(200) / 2


def test_bootstrap_of_a_constant_score_still_has_a_width() -> None:
    rng = np.random.default_rng(3)
    interval = bootstrap_apgr(np.zeros(200), (rng.random(200) < 0.5).astype(float), np.ones(200), rounds=100)
    assert interval.value == pytest.approx(0.5)
    assert interval.high - interval.low > 0.02


def test_need_strong_is_three_quarters_gain_and_one_the_weak_models_failure() -> None:
    outcome = np.array([[0.4, 0.3, 0.1, 0.2], [0, 1, 0, 0], [1, 0, 0, 0]])
    assert need_strong(outcome) == pytest.approx([0.75 * 0.2 + 0.25 * 0.5, 1, 0])
    assert float(need_strong(outcome[0])) == pytest.approx(0.275)


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths"):
        curve(np.zeros(3), np.zeros(4), np.zeros(4))
