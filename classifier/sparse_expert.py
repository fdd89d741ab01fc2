"""The sparse expert: logits of its own for every token and for hashed pairs of neighbours, so it knows idioms.

Part of both encoders. It is fitted by itself (`fit.py`), and its logits are averaged with those of an expert that sees
vectors: two views of a prompt route better, also on prompts of an unknown origin, than either alone.
"""

from typing import Final

import torch
from torch import Tensor, nn

from classifier.labels import DIMENSIONS, OUTCOMES

LENGTH_STEPS: Final = 10  # hat functions over log2(tokens + 1): 0, 1, 3, 7 ... 511 tokens
FIRST_FACTOR: Final = 1_000_003  # the bigram hash; also written into the exported graph
SECOND_FACTOR: Final = 8_191

Widths = tuple[int, int, int]  # of the outcome, the task and the dimensions head: columns of every table, in this order


def head_widths(tasks: int) -> Widths:
    """The widths of the heads for so many task types."""
    return len(OUTCOMES), tasks, len(DIMENSIONS)


class SparseExpert(nn.Module):
    """ids int64 and visible float32 (0 or 1) [n, tokens] -> what tokens, pairs and length say, logits [n, `logits`].

    An invisible token (padding, [CLS], [SEP]) is part of no pair and does not count as length.
    """

    def __init__(self, vocabulary: int, bigrams: int, logits: int) -> None:
        super().__init__()
        self.bigrams = bigrams
        self.token_logits = table(vocabulary, logits)
        self.bigram_logits = table(bigrams, logits)
        self.length_logits = table(LENGTH_STEPS, logits)

    def forward(self, ids: Tensor, visible: Tensor) -> Tensor:
        """See the class."""
        tokens = visible.sum(dim=1, keepdim=True)
        pairs = visible[:, :-1] * visible[:, 1:]
        places = (ids[:, :-1] * FIRST_FACTOR + ids[:, 1:] * SECOND_FACTOR) % self.bigrams
        logits: Tensor = (
            weighted_sum(visible, self.token_logits[ids]) / torch.sqrt(tokens + 1)
            + weighted_sum(pairs, self.bigram_logits[places]) / torch.sqrt(pairs.sum(dim=1, keepdim=True) + 1)
            + length_features(tokens) @ self.length_logits
        )
        return logits


def length_features(tokens: Tensor) -> Tensor:
    """Piecewise linear in the logarithm of the length: tokens float [n, 1] -> float [n, LENGTH_STEPS]."""
    place = torch.clamp(torch.log2(tokens + 1), max=LENGTH_STEPS - 1)
    return torch.relu(1 - torch.abs(place - torch.arange(LENGTH_STEPS, device=tokens.device)))


def weighted_sum(weight: Tensor, rows: Tensor) -> Tensor:
    """[n, tokens] and [n, tokens, k] -> [n, k]."""
    return torch.bmm(weight[:, None, :], rows)[:, 0, :]


def table(*size: int) -> nn.Parameter:
    """Zeros, which no gradient reaches: experts are fitted, not trained."""
    return nn.Parameter(torch.zeros(size), requires_grad=False)
