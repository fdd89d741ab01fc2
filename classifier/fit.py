"""Fit a static encoder: two experts and three heads make six linear regressions, then one model."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from classifier.examples import Examples, Labels
from classifier.features import dense_features, sparse_features
from classifier.recipe import StaticRecipe
from classifier.regression import Link, regression
from classifier.static_encoder import HEADS, LENGTH_STEPS, Shape, StaticEncoder

Progress = Callable[[str], None]


def fit(
    vectors: Tensor, token_weight: Tensor, examples: Examples, recipe: StaticRecipe, progress: Progress
) -> StaticEncoder:
    """A fitted model, rounded to the fp16 that is served; the same arguments give the same weights."""
    model = StaticEncoder(Shape(len(vectors), vectors.shape[1], recipe.bigrams))
    model.vectors.copy_(vectors)
    model.token_weight.copy_(token_weight)
    dense = _expert(
        dense_features(examples.ids, vectors, token_weight),
        examples,
        recipe.dense_penalty,
        recipe.iterations,
        lambda message: progress(f"dense expert, {message}"),
    )
    sparse = _expert(
        sparse_features(examples.ids, token_weight, recipe.bigrams),
        examples,
        recipe.sparse_penalty,
        recipe.iterations,
        lambda message: progress(f"sparse expert, {message}"),
    )
    shares = (recipe.sparse_share, recipe.task_sparse_share, recipe.dimensions_sparse_share)
    sparse_share = torch.tensor([share for share, width in zip(shares, HEADS, strict=True) for _ in range(width)])
    dense *= 1 - sparse_share
    sparse *= sparse_share
    sizes = [LENGTH_STEPS, 1]
    vector_part, *shared = torch.split(dense, [recipe.dimensions, *sizes])
    token_part, bigram_part, *also_shared = torch.split(sparse, [len(vectors), recipe.bigrams, *sizes])
    length_part, bias_part = (one + other for one, other in zip(shared, also_shared, strict=True))
    model.dense_logits.copy_(vector_part)
    model.token_logits.copy_(token_part)
    model.bigram_logits.copy_(bigram_part)
    model.length_logits.copy_(length_part)
    model.bias.copy_(bias_part[0])
    return _as_served(model)


def _expert(features: Tensor, examples: Examples, penalty: float, iterations: int, progress: Progress) -> Tensor:
    """One expert's weights for all heads, [features, LOGITS]; each head learns from the rows that teach it."""
    price = torch.full((features.shape[1],), penalty)
    price[-1] = 0  # the constant

    def head(name: str, labels: Labels, link: Link) -> Tensor:
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
            head("outcome", examples.outcome, "softmax"),
            head("task", examples.task, "softmax"),
            head("dimensions", examples.dimensions, "sigmoid"),
        ],
        dim=1,
    )


def _as_served(model: StaticEncoder) -> StaticEncoder:
    """Round to fp16 now, so that every figure is measured on the numbers that are served."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model.eval()
