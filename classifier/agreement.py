"""How far two labellings of the same prompts agree.

python -m classifier.agreement     prints the tables of classifier/data/README.md
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from classifier.labels import DIMENSIONS
from classifier.own_set import DIFFICULTIES, DIRECTORY, LABELLED_TASK_TYPES, STEPS, OwnPrompt, read_own_set, relabelled

Numbers = NDArray[np.int64]

# The writers' labels as they were when they were compared; later corrections of the set leave this file alone.
FIRST: Final = "first_labels.jsonl"
SECOND: Final = {
    "prompts of the second file": "second_labels.jsonl",
    "by the third writer": "second_opinion.jsonl",
    "prompts of the files e to g": "later_labels.jsonl",
}


def read_pairs(rows: Sequence[OwnPrompt], second: str) -> list[tuple[OwnPrompt, OwnPrompt]]:
    """Each prompt that the file `second` labels: with the writer's labels, and with those; raises DataError."""
    writers, others = (relabelled(rows, DIRECTORY.parent / name) for name in (FIRST, second))
    return [(writers[name], other) for name, other in others.items()]


def kappa(first: Numbers, second: Numbers, *, ordered: bool) -> float:
    """Cohen's kappa of two labellings, each [n] of label numbers: 1 is full agreement, 0 what chance gives.

    When the labels are `ordered`, a disagreement counts by the square of its distance. NaN when both labellings
    know one label only, the same one.
    """
    distance = np.abs(
        first[:, None] - second[None, :]
    )  # [n, n]: same prompt on the diagonal, any two prompts elsewhere
    weight = distance**2 if ordered else np.minimum(distance, 1)
    by_chance = weight.mean()
    return float(1 - weight.diagonal().mean() / by_chance) if by_chance else float("nan")


def spearman(first: Numbers, second: Numbers) -> float:
    """Spearman's rank correlation of two labellings, each [n] of steps; NaN when one of them knows one step only."""
    a, b = (_ranks(side) for side in (first, second))
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else float("nan")


def agreement_table(pairs: Sequence[tuple[OwnPrompt, OwnPrompt]]) -> str:
    """A Markdown table with a row per label: equal, kappa, and where there are steps also near misses and ranks."""
    first, second = ([label_numbers(row) for row in rows] for rows in zip(*pairs, strict=True))
    table = ["| label | equal | at most one step apart | kappa | Spearman |", "|---|---|---|---|---|"]
    for name in first[0]:
        a, b = (np.array([numbers[name] for numbers in side]) for side in (first, second))
        ordered = name != "task type"
        near, ranks = (f"{(np.abs(a - b) <= 1).mean():.0%}", f"{spearman(a, b):.2f}") if ordered else ("", "")
        table.append(f"| {name} | {(a == b).mean():.0%} | {near} | {kappa(a, b, ordered=ordered):.2f} | {ranks} |")
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


def _ranks(steps: Numbers) -> NDArray[np.float64]:
    """The rank of each of [n] steps, equal ones sharing the mean of theirs."""
    _, place, counts = np.unique(steps, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return shared


def main() -> None:
    """Print one table for each second labelling."""
    rows = read_own_set()
    for which, name in SECOND.items():
        pairs = read_pairs(rows, name)
        print(f"{len(pairs)} prompts, {which} ({name}):\n\n{agreement_table(pairs)}\n")


if __name__ == "__main__":
    main()
