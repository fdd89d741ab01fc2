"""Batches of prompts of similar length in random order, and their padding."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.examples import Tokens

WINDOW = 50  # batches; prompts are sorted by length within a window, so that little is padded


def shuffled_batches(lengths: Sequence[int], batch: int, seed: Sequence[int]) -> list[NDArray[np.intp]]:
    """Every row once, in batches of at most `batch` rows of similar length; a pure function of the seed."""
    rng = np.random.default_rng(list(seed))
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.intp]] = []
    for start in range(0, len(order), WINDOW * batch):
        window = order[start : start + WINDOW * batch]
        window = window[np.argsort(np.array(lengths)[window], kind="stable")]
        batches += [window[at : at + batch] for at in range(0, len(window), batch)]
    return [batches[place] for place in rng.permutation(len(batches))]


def sorted_batches(lengths: Sequence[int], batch: int) -> list[NDArray[np.intp]]:
    """Every row once, the shortest first."""
    order = np.argsort(np.array(lengths), kind="stable")
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def pad(ids: Tokens) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both int64 [n, longest]."""
    padded = torch.zeros(len(ids), max(1, *(len(row) for row in ids), 1), dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.from_numpy(tokens)
        mask[row, : len(tokens)] = 1
    return padded, mask
