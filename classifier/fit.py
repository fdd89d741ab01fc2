"""Fit a static encoder: two experts and two heads make four softmax regressions, then one model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.features import dense_features, sparse_features
from classifier.labels import OUTCOMES, TASK_TYPES
from classifier.recipe import Recipe
from classifier.softmax_regression import softmax_regression
from classifier.static_encoder import LENGTH_STEPS, Shape, StaticEncoder

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Labels:
    """What n prompts teach one head: probabilities float32 [n, k] and weights float32 [n], 0 without a label."""

    targets: NDArray[np.float32]
    weight: NDArray[np.float32]

    def rows(self, rows: NDArray[np.intp]) -> "Labels":
        """The labels of these rows, in their order."""
        return Labels(self.targets[rows], self.weight[rows])


@dataclass(frozen=True, slots=True)
class Examples:
    """Tokenized prompts and what they teach the two heads."""

    ids: Sequence[NDArray[np.int64]]
    outcome: Labels
    task: Labels

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, rows: NDArray[np.intp]) -> "Examples":
        """The examples of these rows, in their order."""
        return Examples([self.ids[row] for row in rows], self.outcome.rows(rows), self.task.rows(rows))


def fit(vectors: Tensor, token_weight: Tensor, examples: Examples, recipe: Recipe, progress: Progress) -> StaticEncoder:
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
    sparse_share = torch.tensor([recipe.sparse_share] * len(OUTCOMES) + [recipe.task_sparse_share] * len(TASK_TYPES))
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


@torch.no_grad()
def logits(
    model: StaticEncoder, ids: Sequence[NDArray[np.int64]], batch: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both heads' logits for n tokenized prompts, in their order: [n, 4] and [n, 12]."""
    order = np.argsort([len(row) for row in ids], kind="stable")
    outcome = np.zeros((len(ids), len(OUTCOMES)), np.float32)
    task = np.zeros((len(ids), len(TASK_TYPES)), np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        first, second = model(*pad([ids[row] for row in rows]))
        outcome[rows], task[rows] = first.numpy(), second.numpy()
    return outcome, task


def pad(ids: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both int64 [n, longest]."""
    padded = torch.zeros(len(ids), max(1, *(len(row) for row in ids), 1), dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.from_numpy(tokens)
        mask[row, : len(tokens)] = 1
    return padded, mask


def _expert(features: Tensor, examples: Examples, penalty: float, iterations: int, progress: Progress) -> Tensor:
    """One expert's weights for both heads, [features, LOGITS]; each head learns from the rows that teach it."""
    price = torch.full((features.shape[1],), penalty)
    price[-1] = 0  # the constant

    def head(name: str, labels: Labels) -> Tensor:
        teaching = np.flatnonzero(labels.weight)
        taught = labels.rows(teaching)
        return softmax_regression(
            features.index_select(0, torch.from_numpy(teaching)),
            torch.from_numpy(taught.targets),
            torch.from_numpy(taught.weight),
            price,
            iterations=iterations,
            progress=lambda message: progress(f"{name} head: {message}"),
        )

    return torch.cat([head("outcome", examples.outcome), head("task", examples.task)], dim=1)


def _as_served(model: StaticEncoder) -> StaticEncoder:
    """Round to fp16 now, so that every figure is measured on the numbers that are served."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model.eval()
