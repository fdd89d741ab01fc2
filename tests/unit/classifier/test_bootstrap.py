import numpy as np
import pytest

from classifier import metrics
from classifier.bootstrap import Graded, apgr_difference, figures

RNG = np.random.default_rng(3)
N = 600
HARDNESS = RNG.random(N)
WEAK = (RNG.random(N) > HARDNESS).astype(float)
GRADED = Graded(WEAK, np.ones(N), (np.full(N, 0.001), np.full(N, 0.01)))
NOISE = RNG.random(N)


def test_values_are_those_of_the_exact_metrics() -> None:
    found = figures(HARDNESS, GRADED, p_weak=1 - HARDNESS, rounds=20)
    routed = metrics.curve(HARDNESS, GRADED.weak, GRADED.strong)
    assert found["apgr"].value == metrics.apgr(routed)
    assert found["cpt50"].value == metrics.call_share_for_pgr(routed, 0.5)
    assert found["strong_for_95"].value == metrics.call_share_for_quality(routed)
    assert found["auc"].value == metrics.auc(HARDNESS, GRADED.strong > GRADED.weak)
    assert found["ece"].value == metrics.ece(1 - HARDNESS, GRADED.weak)
    # With equal prices for all prompts, dollars are a straight line over strong calls.
    assert found["dollars_for_95"].value == pytest.approx(1 + 9 * found["strong_for_95"].value)


def test_a_resample_of_all_prompts_once_gives_the_exact_figures() -> None:
    from classifier.bootstrap import _Ranked

    ranked = _Ranked.of(HARDNESS, GRADED, 1 - HARDNESS, np.random.default_rng(0))
    resampled, exact = ranked.figures(np.ones(N, int)), figures(HARDNESS, GRADED, p_weak=1 - HARDNESS, rounds=1)
    assert resampled == pytest.approx({name: one.value for name, one in exact.items()})


def test_intervals_hold_the_value_and_narrow_with_more_prompts() -> None:
    def width(n: int) -> float:
        part = figures(HARDNESS[:n], Graded(WEAK[:n], np.ones(n)), rounds=200)["apgr"]
        assert part.low < part.value < part.high
        return part.high - part.low

    assert width(600) < 0.7 * width(100)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """A score without any information has an APGR of one half."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(100):
        weak = (rng.random(200) > 0.5).astype(float)
        one = figures(rng.random(200), Graded(weak, np.ones(200)), rounds=200, seed=seed)["apgr"]
        covered += one.low <= 0.5 <= one.high
    assert 88 <= covered <= 100


def test_a_paired_difference_is_narrower_than_the_two_intervals() -> None:
    near = HARDNESS + 0.05 * NOISE
    difference = apgr_difference(HARDNESS, near, GRADED, rounds=200)
    alone = figures(HARDNESS, GRADED, rounds=200)["apgr"]
    assert difference.low < difference.value < difference.high
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)


def test_a_score_against_itself_differs_by_nothing() -> None:
    difference = apgr_difference(HARDNESS, HARDNESS, GRADED, rounds=50)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0, 0, 0))


def test_without_a_gap_what_needs_one_is_undefined() -> None:
    found = figures(HARDNESS, Graded(np.ones(N), np.ones(N)), rounds=5)
    assert np.isnan([found["apgr"].value, found["apgr"].low, found["cpt50"].value, found["auc"].value]).all()
