"""Fit a static encoder: two experts and three heads make six linear regressions, then one model."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from classifier.examples import Examples, Labels
from classifier.features import dense_features, sparse_features
from classifier.recipe import StaticRecipe
from classifier.regression import Link, regression
from classifier.sparse_expert import LENGTH_STEPS, SparseExpert
from classifier.static_encoder import Shape, StaticEncoder

Progress = Callable[[str], None]
Penalties = tuple[float, float, float]  # the price of squared weights, for each head


def fit(
    vectors: Tensor, token_weight: Tensor, examples: Examples, recipe: StaticRecipe, progress: Progress
) -> StaticEncoder:
    """A fitted model, rounded to the fp16 that is served; the same arguments give the same weights."""
    model = StaticEncoder(Shape(len(vectors), vectors.shape[1], recipe.bigrams, examples.task.targets.shape[1]))
    model.vectors.copy_(vectors)
    model.token_weight.copy_(token_weight)
    add_experts(model, examples, recipe, progress)
    return _as_served(model)


def add_experts(model: StaticEncoder, examples: Examples, recipe: StaticRecipe, progress: Progress) -> None:
    """Fit both experts to the examples and add them to the model, in place; a head without labels stays as it is."""
    dense = fit_expert(
        dense_features(examples.ids, model.vectors, model.token_weight),
        examples,
        _penalties(recipe.dense_penalty, recipe),
        recipe.iterations,
        lambda message: progress(f"dense expert, {message}"),
    )
    sparse = fit_expert(
        sparse_features(examples.ids, model.token_weight, model.shape.bigrams),
        examples,
        _penalties(recipe.sparse_penalty, recipe),
        recipe.iterations,
        lambda message: progress(f"sparse expert, {message}"),
    )
    shares = (recipe.sparse_share, recipe.task_sparse_share, recipe.dimensions_sparse_share)
    sparse_share = torch.tensor(
        [share for share, width in zip(shares, model.widths, strict=True) for _ in range(width)]
    )
    vectors, length, bias = torch.split(dense * (1 - sparse_share), [model.shape.dimensions, LENGTH_STEPS, 1])
    model.dense_logits.add_(vectors)
    model.bias.add_(bias[0] + add_sparse_expert(model.sparse, sparse * sparse_share))
    model.sparse.length_logits.add_(length)


def fit_expert(
    features: Tensor, examples: Examples, penalties: Penalties, iterations: int, progress: Progress
) -> Tensor:
    """One expert's weights, [features, all heads side by side]; each head learns from the rows that teach it."""

    def head(name: str, labels: Labels, penalty: float, link: Link) -> Tensor:
        price = torch.full((features.shape[1],), penalty)
        price[-1] = 0  # the constant
        teaching = np.flatnonzero(labels.weight)
        if len(teaching) == 0:
            return torch.zeros(features.shape[1], labels.targets.shape[1])
        taught = labels.rows(teaching)
        return regression(
            features.index_select(0, torch.from_numpy(teaching)),
            torch.from_numpy(taught.targets),
            torch.from_numpy(taught.weight),
            price,
            link=link,
            iterations=iterations,
            progress=lambda message: progress(f"{name} head: {message}"),
        )

    return torch.cat(
        [
            head("outcome", examples.outcome, penalties[0], "softmax"),
            head("task", examples.task, penalties[1], "softmax"),
            head("dimensions", examples.dimensions, penalties[2], "sigmoid"),
        ],
        dim=1,
    )


def _penalties(outcome: float, recipe: StaticRecipe) -> Penalties:
    return outcome, outcome * recipe.label_penalty, outcome * recipe.label_penalty


def add_sparse_expert(expert: SparseExpert, weights: Tensor) -> Tensor:
    """Add fitted weights, [features, logits], to the tables; returns the constant's, [logits], for another's bias."""
    sizes = [len(expert.token_logits), expert.bigrams, LENGTH_STEPS, 1]
    tokens, bigrams, length, constant = torch.split(weights, sizes)
    expert.token_logits.add_(tokens)
    expert.bigram_logits.add_(bigrams)
    expert.length_logits.add_(length)
    return constant[0]


def _as_served(model: StaticEncoder) -> StaticEncoder:
    """Round to fp16 now, so that every figure is measured on the numbers that are served."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model.eval()
