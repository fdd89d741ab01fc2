"""The corpus: every prompt tokenized, labelled and grouped, and how it is split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from classifier import labelled, vocabulary
from classifier.errors import DataError
from classifier.examples import Examples, Labels
from classifier.groups import near_duplicate_groups
from classifier.labels import DIMENSIONS, OUTCOMES, TASK_TYPES
from classifier.recipe import DataRecipe
from classifier.targets import averaged_targets, outcome_targets

TEST_SHARE: Final = 0.15
CALIBRATION_SHARE: Final = 0.05
OWN_SET: Final = "own-set"  # the source of the project's labelled prompts: written like users write

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything that training reads; n rows."""

    examples: Examples
    groups: NDArray[np.int64]  # [n]
    sources: NDArray[np.str_]  # [n]
    routing: Mask  # [n], the rows that have an outcome
    weak: NDArray[np.float64]  # [n], 0 for the others
    strong: NDArray[np.float64]  # [n]
    sha256: str

    def outcomes(self, rows: Mask) -> NDArray[np.float64]:
        """The outcomes that were seen, as targets: [rows, 4]."""
        return outcome_targets(self.weak[rows], self.strong[rows])


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows train, calibrate and test; near-duplicates are never on two sides. Each [n]."""

    train: Mask
    calibration: Mask
    test: Mask


def build_corpus(
    rows: Sequence[labelled.Row],
    tokenizer: Tokenizer,
    max_tokens: int,
    recipe: DataRecipe,
    task_types: Sequence[str] = TASK_TYPES,
) -> Corpus:
    """Tokenize, group and label all rows."""
    outcomes = [row.outcome for row in rows]
    routing = np.array([outcome is not None for outcome in outcomes])
    weak = np.array([0.0 if outcome is None else outcome.weak for outcome in outcomes])
    strong = np.array([0.0 if outcome is None else outcome.strong for outcome in outcomes])
    prompts = [row.prompt for row in rows]
    return Corpus(
        examples=Examples(
            ids=vocabulary.tokenize(tokenizer, prompts, max_tokens),
            outcome=_outcome_labels(rows, recipe.pair_average),
            task=_task_labels(rows, task_types, recipe.own_weight),
            dimensions=_dimension_labels(rows),
            answers=_answers(outcomes),
        ),
        groups=near_duplicate_groups(prompts, [row.group for row in rows]),
        sources=np.array([row.source for row in rows]),
        routing=routing,
        weak=weak,
        strong=strong,
        sha256=labelled.digest(rows),
    )


def check_labels(corpus: Corpus, task_types: Sequence[str]) -> None:
    """Raise DataError when the labels of a head are all the same: it would learn to say nothing else."""
    pairs = np.unique(np.stack([corpus.weak, corpus.strong])[:, corpus.routing], axis=1).T
    if len(pairs) == 1:
        weak, strong = pairs[0].tolist()
        raise DataError(
            f"every outcome is the same, weak_score {weak:g} and strong_score {strong:g}: nothing tells prompts apart; "
            "add prompts that ended otherwise"
        )
    tasks = np.flatnonzero(corpus.examples.task.targets.any(axis=0))
    if len(tasks) == 1:
        raise DataError(f"every task_type is {task_types[tasks[0]]}: add other tasks, or leave the labels out")


def split_by_group(groups: NDArray[np.int64], seed: int) -> Split:
    """Deal whole groups at random to test, calibration and training."""
    numbers, index = np.unique(groups, return_inverse=True)
    draw = np.random.default_rng(seed).random(len(numbers))[index]
    test = draw < TEST_SHARE
    calibration = ~test & (draw < TEST_SHARE + CALIBRATION_SHARE)
    return Split(train=~test & ~calibration, calibration=calibration, test=test)


def check_split(split: Split, corpus: Corpus) -> None:
    """Raise DataError when nothing is left to learn from, or to judge on."""
    if not (split.train & corpus.examples.teaching).any() or not split.test.any():
        raise DataError(
            f"the {len(corpus.examples):,} prompts fall into {len(np.unique(corpus.groups)):,} group(s) of "
            "near-duplicates, too few to train on some and test on others: add other prompts, or leave `group` out"
        )


def _outcome_labels(rows: Sequence[labelled.Row], pair_average: float) -> Labels:
    known = [(index, row.source, row.outcome) for index, row in enumerate(rows) if row.outcome is not None]
    targets = np.zeros((len(rows), len(OUTCOMES)), np.float32)
    if known:
        places, sources, outcomes = zip(*known, strict=True)
        targets[list(places)] = averaged_targets(outcomes, sources, pair_average)
    # What is known to be labelled unreliably teaches nothing, but it is judged on like the rest.
    weight = [float(row.outcome is not None and not row.outcome.noisy) for row in rows]
    return Labels(targets, np.array(weight, np.float32))


def _task_labels(rows: Sequence[labelled.Row], task_types: Sequence[str], own_weight: float) -> Labels:
    place = {name: column for column, name in enumerate(task_types)}
    targets = np.zeros((len(rows), len(place)), np.float32)
    for index, row in enumerate(rows):
        if row.task_type is not None:
            targets[index, place[row.task_type]] = 1
    own = np.array([row.source == OWN_SET for row in rows])
    return Labels(targets, (targets.sum(axis=1) * np.where(own, own_weight, 1)).astype(np.float32))


def _dimension_labels(rows: Sequence[labelled.Row]) -> Labels:
    unknown = (0.0,) * len(DIMENSIONS)
    targets = np.array([row.dimensions or unknown for row in rows], np.float32)
    return Labels(targets, np.array([row.dimensions is not None for row in rows], np.float32))


def _answers(outcomes: Sequence[labelled.Outcome | None]) -> NDArray[np.float32]:
    """[n, models]; noisy labels are no answers."""
    taught = [{} if outcome is None or outcome.noisy else outcome.models for outcome in outcomes]
    models = sorted({model for scores in taught for model in scores})
    return np.array([[scores.get(model, np.nan) for model in models] for scores in taught], np.float32).reshape(
        len(outcomes), len(models)
    )
