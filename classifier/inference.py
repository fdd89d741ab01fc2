"""What a trained encoder of either kind says of many prompts, offline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.batches import pad, sorted_batches
from classifier.examples import Tokens

Floats = NDArray[np.float32]
Model = Callable[[Tensor, Tensor], Sequence[Tensor]]  # ids and mask -> what the heads say


@dataclass(frozen=True, slots=True)
class Outputs:
    """Of n prompts, in their order."""

    outcome: Floats  # [n, 4] logits
    task: Floats  # [n, task types] logits
    dimensions: Floats  # [n, 6] in 0..1


@torch.inference_mode()
def outputs(model: Model, ids: Tokens, batch: int = 64) -> Outputs:
    """All heads' outputs for n tokenized prompts; `model` is an encoder, or computes as one."""
    found: tuple[list[Floats], ...] = ([], [], [])
    order = sorted_batches([len(row) for row in ids], batch)
    for rows in order:
        for head, values in zip(found, model(*pad([ids[row] for row in rows])), strict=True):
            head.append(values.numpy())
    return Outputs(*(_unsorted(head, order) for head in found))


@torch.inference_mode()
def part_outputs(part: Callable[[Tensor, Tensor], Tensor], ids: Tokens, batch: int = 64) -> Floats:
    """What a part of a model, ids and mask -> [n, k], says of n tokenized prompts: [n, k]."""
    order = sorted_batches([len(row) for row in ids], batch)
    return _unsorted([part(*pad([ids[row] for row in rows])).numpy() for rows in order], order)


def _unsorted(parts: list[Floats], order: list[NDArray[np.intp]]) -> Floats:
    joined = np.concatenate(parts)
    result = np.empty_like(joined)
    result[np.concatenate(order)] = joined
    return result
