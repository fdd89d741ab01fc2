import math
from dataclasses import replace

import numpy as np
import pytest

from classifier.agreement import SECOND, agreement_table, kappa, read_pairs, spearman
from classifier.own_set import DIRECTORY, OwnPrompt, read_own_set


def test_kappa_is_one_for_equal_labellings_and_nothing_for_a_single_label() -> None:
    assert kappa(np.array([0, 1, 2, 1]), np.array([0, 1, 2, 1]), ordered=False) == 1
    assert math.isnan(kappa(np.zeros(3, np.int64), np.zeros(3, np.int64), ordered=True))


def test_kappa_by_hand() -> None:
    """Yes and no: 35 of 50 agree; by chance (25 * 30 + 25 * 20) / 2500 = half of them would."""
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert kappa(first, second, ordered=False) == pytest.approx(0.4)


def test_a_near_miss_costs_less_when_labels_are_ordered() -> None:
    first, near, far = np.array([0, 1, 2, 3]), np.array([1, 1, 2, 3]), np.array([3, 1, 2, 3])
    assert kappa(first, near, ordered=True) > kappa(first, far, ordered=True)


def test_quadratic_kappa_by_hand() -> None:
    """Squares of the distances: 1 over 4 prompts; by chance the mean over all 16 pairs."""
    first, second = np.array([0, 1, 2, 3]), np.array([1, 1, 2, 3])
    by_chance = sum((a - b) ** 2 for a in first for b in second) / 16
    assert kappa(first, second, ordered=True) == pytest.approx(1 - (1 / 4) / by_chance)


def test_spearman_by_hand() -> None:
    """Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * (1 + 1 + 1 + 1) / (5 * 24)."""
    steps = np.arange(5)
    assert spearman(steps, np.array([1, 0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(steps, -(steps**2)) == pytest.approx(-1)


def test_spearman_gives_equal_steps_the_mean_of_their_ranks() -> None:
    """Ranks 1.5 1.5 3 against 1 2 3: the covariance is 1.5 / 3, the variances 1.5 / 3 and 2 / 3."""
    assert spearman(np.array([0, 0, 2]), np.array([0, 1, 2])) == pytest.approx(0.5 / math.sqrt(0.5 * 2 / 3))
    assert math.isnan(spearman(np.array([1, 1, 1]), np.array([0, 1, 2])))


def test_the_table_counts_equal_labels_and_near_ones() -> None:
    row = OwnPrompt("t-1", "en", "t-1", ("What is a fjord?",), "Open QA", (0, 0, 0, 1 / 3, 0, 0), "easy")
    other = replace(row, task_type="Chatbot", dimensions=(0, 2 / 3, 0, 2 / 3, 0, 0))
    table = agreement_table([(row, row), (row, other)])
    assert "| task type | 50% |  | 0.00 |  |" in table
    assert "| reasoning | 50% | 50% | 0.00 | nan |" in table
    assert "| domain_knowledge | 50% | 100% | 0.00 | nan |" in table


@pytest.mark.parametrize("second", SECOND.values())
def test_prompts_are_labelled_twice_and_the_card_reports_their_agreement(second: str) -> None:
    pairs = read_pairs(read_own_set(), second)
    assert len(pairs) >= (60 if second == "later_labels.jsonl" else 150)
    assert all(first.id == other.id for first, other in pairs)
    assert agreement_table(pairs) in (DIRECTORY.parent / "README.md").read_text(encoding="utf-8")
