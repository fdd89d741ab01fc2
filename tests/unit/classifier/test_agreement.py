import math
from dataclasses import replace

import numpy as np
import pytest

from classifier.agreement import agreement_table, kappa
from classifier.own_set import DIRECTORY, OwnPrompt, read_own_set, read_second_labels


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


def test_the_table_counts_equal_labels_and_near_ones() -> None:
    row = OwnPrompt("t-1", "en", "t-1", ("What is a fjord?",), "Open QA", (0, 0, 0, 1 / 3, 0, 0), "easy")
    other = replace(row, task_type="Chatbot", dimensions=(0, 2 / 3, 0, 2 / 3, 0, 0))
    table = agreement_table([(row, row), (row, other)])
    assert "| task type | 50% |  | 0.00 |" in table
    assert "| reasoning | 50% | 50% | 0.00 |" in table
    assert "| domain_knowledge | 50% | 100% | 0.00 |" in table


def test_150_prompts_are_labelled_twice_and_the_card_reports_their_agreement() -> None:
    pairs = read_second_labels(read_own_set())
    assert len({first.id for first, _ in pairs}) == len(pairs) >= 150
    assert agreement_table(pairs) in (DIRECTORY.parent / "README.md").read_text(encoding="utf-8")
