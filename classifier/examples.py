"""Tokenized prompts and what they teach each head: all that fitting sees of the data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Labels:
    """What n prompts teach one head: targets in 0..1, float32 [n, k], and weights float32 [n], 0 without a label."""

    targets: NDArray[np.float32]
    weight: NDArray[np.float32]

    def rows(self, rows: NDArray[np.intp]) -> "Labels":
        """The labels of these rows, in their order."""
        return Labels(self.targets[rows], self.weight[rows])


@dataclass(frozen=True, slots=True)
class Examples:
    """n prompts and their labels."""

    ids: Tokens
    outcome: Labels  # probabilities of OUTCOMES
    task: Labels  # probabilities of the task types
    dimensions: Labels  # DIMENSIONS, each for itself
    answers: NDArray[np.float32]  # [n, models]: the score of each model's answer, NaN where there is none

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def teaching(self) -> NDArray[np.bool_]:
        """Which prompts have a label for any head, [n]."""
        labelled = self.outcome.weight + self.task.weight + self.dimensions.weight > 0
        return np.asarray(labelled | ~np.isnan(self.answers).all(axis=1))

    def cut(self, tokens: int) -> "Examples":
        """The same with prompts of at most so many tokens; the last one, [SEP], stays the last."""
        return replace(
            self, ids=[np.append(row[: tokens - 1], row[-1]) if len(row) > tokens else row for row in self.ids]
        )

    def rows(self, rows: NDArray[np.intp]) -> "Examples":
        """The examples of these rows, in their order."""
        return Examples(
            [self.ids[row] for row in rows],
            self.outcome.rows(rows),
            self.task.rows(rows),
            self.dimensions.rows(rows),
            self.answers[rows],
        )
