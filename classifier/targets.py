"""What the outcome head learns, from graded answers of many models."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from classifier.data import RoutingRow

Floats = NDArray[np.float64]

SIMILAR_MEAN = 0.1


def outcome_targets(weak: Floats, strong: Floats) -> Floats:
    """Probabilities of both, only_strong, only_weak, neither: scores 0..1 of shape [n] -> [n, 4].

    A graded score is read as the chance that the answer suffices. Of all joint distributions with these two
    chances the one with the most agreement is taken: two answers to one prompt succeed and fail together far
    more often than independent ones would. For scores of 0 and 1 it is the plain outcome.
    """
    agreed = np.minimum(weak, strong)
    return np.stack([agreed, strong - agreed, weak - agreed, 1 - np.maximum(weak, strong)], axis=-1)


def averaged_targets(rows: Sequence[RoutingRow], pair_average: float) -> Floats:
    """Targets of the named pair, moved by `pair_average` (0..1) towards the mean over pairs like it, [n, 4].

    One model's answer is a coin toss on many prompts. Pairs alike, on a source: every model whose mean score
    there is within SIMILAR_MEAN of the named weak model's, with every one that near the strong model's.
    """
    targets = outcome_targets(
        np.array([row.weak_score for row in rows], float), np.array([row.strong_score for row in rows], float)
    )
    if pair_average == 0:
        return targets
    for source in sorted({row.source for row in rows}):
        chosen = [index for index, row in enumerate(rows) if row.source == source]
        weak_models, strong_models = _tiers([rows[index] for index in chosen])
        for index in chosen:
            scores = rows[index].models
            pairs = [
                (scores[weak], scores[strong])
                for weak in sorted(weak_models & scores.keys())  # sorted: sums depend on the order
                for strong in sorted(strong_models & scores.keys())
            ]
            if pairs:
                average = outcome_targets(*np.array(pairs).T).mean(axis=0)
                targets[index] += pair_average * (average - targets[index])
    return targets


def _tiers(rows: Sequence[RoutingRow]) -> tuple[set[str], set[str]]:
    """Models of the weak and of the strong tier on one source; one that is near both belongs to neither."""
    weak = float(np.mean([row.weak_score for row in rows]))
    strong = float(np.mean([row.strong_score for row in rows]))
    models = {model for row in rows for model in row.models}
    means = {model: float(np.mean([row.models[model] for row in rows if model in row.models])) for model in models}
    near_weak = {model for model, mean in means.items() if abs(mean - weak) <= SIMILAR_MEAN}
    near_strong = {model for model, mean in means.items() if abs(mean - strong) <= SIMILAR_MEAN}
    return near_weak - near_strong, near_strong - near_weak
