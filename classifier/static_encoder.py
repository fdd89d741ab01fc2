"""The static encoder: two linear experts over a prompt's tokens, averaged; no attention anywhere.

The dense expert sees the weighted mean of the tokens' vectors, so it knows words that it was never trained on.
The sparse expert has logits of its own for every token and for hashed pairs of neighbours, so it knows idioms.
Both know the prompt's length. They are fitted apart and their logits averaged, which routes better, also on
prompts of an unknown origin, than either alone or than one model over all features.

About a hundred times cheaper on a CPU than the transformer from which its vectors come. Its graph takes the
same inputs as a transformer's, so that the serving code need not know which of the two it runs.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from classifier.labels import DIMENSIONS, OUTCOMES, TASK_TYPES

LENGTH_STEPS: Final = 10  # hat functions over log2(tokens + 1): 0, 1, 3, 7 ... 511 tokens
FIRST_FACTOR: Final = 1_000_003  # the bigram hash; also written into the exported graph
SECOND_FACTOR: Final = 8_191
HEADS: Final = (len(OUTCOMES), len(TASK_TYPES), len(DIMENSIONS))  # columns of every table, in this order
LOGITS: Final = sum(HEADS)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a static encoder: vocabulary entries, vector dimensions, rows of the hashed bigram table."""

    vocabulary: int
    dimensions: int
    bigrams: int


class StaticEncoder(nn.Module):
    """ids and mask int64 [n, tokens] -> outcome logits [n, 4], task logits [n, 12], dimensions [n, 6] in 0..1.

    A token of weight 0 (padding, [CLS], [SEP]) is invisible to every feature, so that it does not matter
    whether the caller's tokenizer adds special tokens. An empty prompt has only its length.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.vectors = _table(shape.vocabulary, shape.dimensions)
        self.token_weight = _table(shape.vocabulary)
        self.dense_logits = _table(shape.dimensions, LOGITS)
        self.token_logits = _table(shape.vocabulary, LOGITS)
        self.bigram_logits = _table(shape.bigrams, LOGITS)
        self.length_logits = _table(LENGTH_STEPS, LOGITS)
        self.bias = _table(LOGITS)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads; see the class."""
        weight = self.token_weight[ids] * mask
        visible = (weight > 0).to(weight.dtype)
        tokens = visible.sum(dim=1, keepdim=True)
        mean = _weighted_sum(weight, self.vectors[ids]) / (weight.sum(dim=1, keepdim=True) + 1e-6)
        pairs = visible[:, :-1] * visible[:, 1:]
        logits = (
            mean @ self.dense_logits
            + _weighted_sum(visible, self.token_logits[ids]) / torch.sqrt(tokens + 1)
            + _weighted_sum(pairs, self.bigram_logits[self._bigrams(ids)])
            / torch.sqrt(pairs.sum(dim=1, keepdim=True) + 1)
            + length_features(tokens) @ self.length_logits
            + self.bias
        )
        outcome, task, dimensions = torch.split(logits, list(HEADS), dim=1)
        return outcome, task, torch.sigmoid(dimensions)

    def _bigrams(self, ids: Tensor) -> Tensor:
        return (ids[:, :-1] * FIRST_FACTOR + ids[:, 1:] * SECOND_FACTOR) % self.shape.bigrams


def length_features(tokens: Tensor) -> Tensor:
    """Piecewise linear in the logarithm of the length: tokens float32 [n, 1] -> float32 [n, LENGTH_STEPS]."""
    place = torch.clamp(torch.log2(tokens + 1), max=LENGTH_STEPS - 1)
    return torch.relu(1 - torch.abs(place - torch.arange(LENGTH_STEPS)))


def _weighted_sum(weight: Tensor, rows: Tensor) -> Tensor:
    """[n, tokens] and [n, tokens, k] -> [n, k]."""
    return torch.bmm(weight[:, None, :], rows)[:, 0, :]


def _table(*size: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(size), requires_grad=False)
