"""What the outcome head learns, from graded answers of many models."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from classifier.labelled import Outcome

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


def averaged_targets(outcomes: Sequence[Outcome], sources: Sequence[str], pair_average: float) -> Floats:
    """Targets of the named pair, moved by `pair_average` (0..1) towards the mean over pairs like it, [n, 4].

    One model's answer is a coin toss on many prompts. Pairs alike, on a source: every model whose mean score
    there is within SIMILAR_MEAN of the named weak model's, with every one that near the strong model's.
    """
    targets = outcome_targets(
        np.array([outcome.weak for outcome in outcomes], float),
        np.array([outcome.strong for outcome in outcomes], float),
    )
    if pair_average == 0:
        return targets
    for source in sorted(set(sources)):
        chosen = [index for index, other in enumerate(sources) if other == source]
        weak_models, strong_models = _tiers([outcomes[index] for index in chosen])
        for index in chosen:
            scores = outcomes[index].models
            pairs = [
                (scores[weak], scores[strong])
                for weak in sorted(weak_models & scores.keys())  # sorted: sums depend on the order
                for strong in sorted(strong_models & scores.keys())
            ]
            if pairs:
                average = outcome_targets(*np.array(pairs).T).mean(axis=0)
                targets[index] += pair_average * (average - targets[index])
    return targets


def _tiers(outcomes: Sequence[Outcome]) -> tuple[set[str], set[str]]:
    """Models of the weak and of the strong tier on one source; one that is near both belongs to neither."""
    weak = float(np.mean([outcome.weak for outcome in outcomes]))
    strong = float(np.mean([outcome.strong for outcome in outcomes]))
    models = {model for outcome in outcomes for model in outcome.models}
    means = {
        model: float(np.mean([outcome.models[model] for outcome in outcomes if model in outcome.models]))
        for model in models
    }
    near_weak = {model for model, mean in means.items() if abs(mean - weak) <= SIMILAR_MEAN}
    near_strong = {model for model, mean in means.items() if abs(mean - strong) <= SIMILAR_MEAN}
    return near_weak - near_strong, near_strong - near_weak
