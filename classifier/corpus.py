"""The corpus: every prompt tokenized, labelled and grouped, and how it is split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from classifier import data, vocabulary
from classifier.fit import Examples, Labels
from classifier.groups import near_duplicate_groups
from classifier.labels import OUTCOMES, TASK_TYPES
from classifier.targets import averaged_targets, outcome_targets

MAX_TOKENS: Final = 512
TEST_SHARE: Final = 0.15
CALIBRATION_SHARE: Final = 0.05

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything that training reads, routing rows first, then task rows; n rows in all."""

    examples: Examples
    groups: NDArray[np.int64]  # [n]
    sources: NDArray[np.str_]  # [n], "" for task rows
    weak: NDArray[np.float64]  # [n], 0 for task rows
    strong: NDArray[np.float64]  # [n]
    sha256: str

    @property
    def routing(self) -> Mask:
        """The rows that have an outcome, [n]."""
        return np.asarray(self.sources != "")

    def outcomes(self, rows: Mask) -> NDArray[np.float64]:
        """Targets of the outcome head, [rows, 4]."""
        return outcome_targets(self.weak[rows], self.strong[rows])


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows train, calibrate and test; near-duplicates are never on two sides. Each [n]."""

    train: Mask
    calibration: Mask
    test: Mask


def build_corpus(
    routing: Sequence[data.RoutingRow], tasks: Sequence[data.TaskRow], tokenizer: Tokenizer, pair_average: float
) -> Corpus:
    """Tokenize, group and label all rows."""
    prompts = [row.prompt for row in routing] + [row.prompt for row in tasks]
    n, without_task = len(prompts), len(routing)
    weak, strong = np.zeros(n), np.zeros(n)
    weak[:without_task] = [row.weak_score for row in routing]
    strong[:without_task] = [row.strong_score for row in routing]
    outcome = np.zeros((n, len(OUTCOMES)), np.float32)
    outcome[:without_task] = averaged_targets(routing, pair_average)
    # What is known to be labelled unreliably teaches nothing, but it is judged on like the rest.
    outcome_weight = np.zeros(n, np.float32)
    outcome_weight[:without_task] = [not row.noisy_label for row in routing]
    task = np.zeros((n, len(TASK_TYPES)), np.float32)
    task[np.arange(without_task, n), [TASK_TYPES.index(row.task_type) for row in tasks]] = 1
    examples = Examples(
        ids=vocabulary.tokenize(tokenizer, prompts, MAX_TOKENS),
        outcome=Labels(outcome, outcome_weight),
        task=Labels(task, task.sum(axis=1)),
    )
    return Corpus(
        examples=examples,
        groups=near_duplicate_groups(prompts),
        sources=np.array([row.source for row in routing] + [""] * len(tasks)),
        weak=weak,
        strong=strong,
        sha256=data.digest([*routing, *tasks]),
    )


def split_by_group(groups: NDArray[np.int64], seed: int) -> Split:
    """Deal whole groups at random to test, calibration and training."""
    numbers, index = np.unique(groups, return_inverse=True)
    draw = np.random.default_rng(seed).random(len(numbers))[index]
    test = draw < TEST_SHARE
    calibration = ~test & (draw < TEST_SHARE + CALIBRATION_SHARE)
    return Split(train=~test & ~calibration, calibration=calibration, test=test)
