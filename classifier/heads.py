"""Fit the heads of a finished encoder: what a few hundred labels can change without forgetting the rest."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from classifier.examples import Examples, Labels
from classifier.features import dense_features
from classifier.inference import outputs, part_outputs
from classifier.regression import regression
from classifier.sparse_expert import LENGTH_STEPS, Widths
from classifier.static_encoder import StaticEncoder
from classifier.transformer_encoder import TransformerEncoder

Head = Literal["outcome", "task", "dimensions"]

ALL: Final[tuple[Head, ...]] = ("outcome", "task", "dimensions")
ITERATIONS: Final = 100


@torch.no_grad()
def fit_heads(
    model: StaticEncoder | TransformerEncoder,
    examples: Examples,
    heads: Sequence[Head],
    penalty: float,
    progress: Callable[[str], None],
) -> None:
    """Add to these heads, in place, the penalised change that fits the examples best; no label, no change.

    What changes is what the heads make of vectors: the tables of tokens and pairs have too many rows for a few labels.
    `penalty` is the price of a squared change; a great one leaves all as it was.
    """
    examples = examples.rows(np.flatnonzero(sum(getattr(examples, head).weight for head in heads)))
    if len(examples) == 0:
        return
    features = _features(model, examples)
    price = torch.full((features.shape[1],), penalty)
    price[-1] = 0  # the constant
    for head in heads:
        labels: Labels = getattr(examples, head)
        teaching = np.flatnonzero(labels.weight)
        if len(teaching) == 0:
            continue
        rows, taught = torch.from_numpy(teaching), labels.rows(teaching)
        change = regression(
            features[rows],
            torch.from_numpy(taught.targets),
            torch.from_numpy(taught.weight),
            price,
            link="sigmoid" if head == "dimensions" else "softmax",
            iterations=ITERATIONS,
            progress=lambda message, head=head: progress(f"{head} head: {message}"),  # type: ignore[misc]
            offset=_said(model, features[rows], examples.rows(teaching), head),
        )
        _add(model, head, change)


def _features(model: StaticEncoder | TransformerEncoder, examples: Examples) -> Tensor:
    """[n, features + 1]: the last one is constant."""
    if isinstance(model, StaticEncoder):
        return dense_features(examples.ids, model.vectors, model.token_weight)
    seen = torch.from_numpy(part_outputs(model.body, examples.ids))
    return torch.cat([seen, torch.ones(len(seen), 1)], dim=1)


def _said(model: StaticEncoder | TransformerEncoder, features: Tensor, examples: Examples, head: Head) -> Tensor:
    """The head's logits as they are, [n, k]."""
    if isinstance(model, TransformerEncoder):
        sparse = torch.from_numpy(part_outputs(model.sparse_logits, examples.ids))
        dense: Tensor = _linear(model, head)(features[:, :-1])
        return dense + sparse[:, _columns(head, model.widths)]
    said = torch.from_numpy(getattr(outputs(model, examples.ids), head))
    return torch.logit(said, eps=1e-6) if head == "dimensions" else said


def _add(model: StaticEncoder | TransformerEncoder, head: Head, change: Tensor) -> None:
    """`change` is [features + 1, k]."""
    if isinstance(model, TransformerEncoder):
        linear = _linear(model, head)
        linear.weight.add_(change[:-1].T)
        linear.bias.add_(change[-1])
        return
    columns = _columns(head, model.widths)
    vectors, length, bias = torch.split(change, [model.shape.dimensions, LENGTH_STEPS, 1])
    model.dense_logits[:, columns] += vectors
    model.sparse.length_logits[:, columns] += length
    model.bias[columns] += bias[0]


def _columns(head: Head, widths: Widths) -> slice:
    """Of tables that have all heads side by side."""
    place = ALL.index(head)
    return slice(sum(widths[:place]), sum(widths[: place + 1]))


def _linear(model: TransformerEncoder, head: Head) -> nn.Linear:
    linear: nn.Linear = getattr(model, head)
    return linear
