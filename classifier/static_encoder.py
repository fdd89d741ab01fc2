"""The static encoder: two linear experts over a prompt's tokens, averaged; no attention anywhere.

The dense expert sees the weighted mean of the tokens' vectors, so it knows words that it was never trained on.
The sparse expert knows tokens and pairs of them (`sparse_expert.py`). Both know the prompt's length.

About a hundred times cheaper on a CPU than the transformer from which its vectors come. Its graph takes the
same inputs as a transformer's, so that the serving code need not know which of the two it runs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classifier.sparse_expert import HEADS, LOGITS, SparseExpert, table, weighted_sum


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
        self.vectors = table(shape.vocabulary, shape.dimensions)
        self.token_weight = table(shape.vocabulary)
        self.dense_logits = table(shape.dimensions, LOGITS)
        self.sparse = SparseExpert(shape.vocabulary, shape.bigrams)
        self.bias = table(LOGITS)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads; see the class."""
        weight = self.token_weight[ids] * mask
        visible = (weight > 0).to(weight.dtype)
        mean = weighted_sum(weight, self.vectors[ids]) / (weight.sum(dim=1, keepdim=True) + 1e-6)
        logits = mean @ self.dense_logits + self.sparse(ids, visible) + self.bias
        outcome, task, dimensions = torch.split(logits, list(HEADS), dim=1)
        return outcome, task, torch.sigmoid(dimensions)
