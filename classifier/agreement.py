"""How far two labellings of the same prompts agree: shares and Cohen's kappa."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from classifier.labels import DIMENSIONS
from classifier.own_set import DIFFICULTIES, LABELLED_TASK_TYPES, STEPS, OwnPrompt

Numbers = NDArray[np.int64]


def kappa(first: Numbers, second: Numbers, *, ordered: bool) -> float:
    """Cohen's kappa of two labellings, each [n] of label numbers: 1 is full agreement, 0 what chance gives.

    When the labels are `ordered`, a disagreement counts by its distance (linear weights). NaN when both labellings
    know one label only, the same one.
    """
    distance = np.abs(
        first[:, None] - second[None, :]
    )  # [n, n]: same prompt on the diagonal, any two prompts elsewhere
    if not ordered:
        distance = np.minimum(distance, 1)
    by_chance = distance.mean()
    return float(1 - distance.diagonal().mean() / by_chance) if by_chance else float("nan")


def agreement_table(pairs: Sequence[tuple[OwnPrompt, OwnPrompt]]) -> str:
    """A Markdown table with a row per label: equal, at most one step apart where there are steps, and kappa."""
    first, second = ([label_numbers(row) for row in rows] for rows in zip(*pairs, strict=True))
    table = ["| label | equal | at most one step apart | kappa |", "|---|---|---|---|"]
    for name in first[0]:
        a, b = (np.array([numbers[name] for numbers in side]) for side in (first, second))
        ordered = name != "task type"
        near = f"{(np.abs(a - b) <= 1).mean():.0%}" if ordered else ""
        table.append(f"| {name} | {(a == b).mean():.0%} | {near} | {kappa(a, b, ordered=ordered):.2f} |")
    return "\n".join(table)


def label_numbers(row: OwnPrompt) -> dict[str, int]:
    """Each label of a prompt as its place among the allowed ones."""
    steps = list(STEPS.values())
    dimensions = {name: steps.index(value) for name, value in zip(DIMENSIONS, row.dimensions, strict=True)}
    return {
        "task type": LABELLED_TASK_TYPES.index(row.task_type),
        **dimensions,
        "difficulty": DIFFICULTIES.index(row.difficulty),
    }
