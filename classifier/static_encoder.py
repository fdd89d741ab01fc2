"""The static encoder: two linear experts over a prompt's tokens, averaged; no attention anywhere.

The dense expert sees the weighted mean of the tokens' vectors, so it knows words that it was never trained on.
The sparse expert knows tokens and pairs of them (`sparse_expert.py`). Both know the prompt's length.

About a hundred times cheaper on a CPU than the transformer from which its vectors come. Its graph takes the
same inputs as a transformer's, so that the serving code need not know which of the two it runs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classifier.labels import TASK_TYPES
from classifier.sparse_expert import SparseExpert, head_widths, table, weighted_sum


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a static encoder: vocabulary entries, vector dimensions, rows of the hashed bigram table, task types."""

    vocabulary: int
    dimensions: int
    bigrams: int
    tasks: int = len(TASK_TYPES)


class StaticEncoder(nn.Module):
    """ids and mask int64 [n, tokens] -> outcome logits [n, 4], task logits [n, tasks], dimensions [n, 6] in 0..1.

    A token of weight 0 (padding, [CLS], [SEP]) is invisible to every feature, so that it does not matter
    whether the caller's tokenizer adds special tokens. An empty prompt has only its length.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.widths = head_widths(shape.tasks)
        logits = sum(self.widths)
        self.vectors = table(shape.vocabulary, shape.dimensions)
        self.token_weight = table(shape.vocabulary)
        self.dense_logits = table(shape.dimensions, logits)
        self.sparse = SparseExpert(shape.vocabulary, shape.bigrams, logits)
        self.bias = table(logits)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads; see the class."""
        weight = self.token_weight[ids] * mask
        visible = (weight > 0).to(weight.dtype)
        mean = weighted_sum(weight, self.vectors[ids]) / (weight.sum(dim=1, keepdim=True) + 1e-6)
        logits = mean @ self.dense_logits + self.sparse(ids, visible) + self.bias
        outcome, task, dimensions = torch.split(logits, list(self.widths), dim=1)
        return outcome, task, torch.sigmoid(dimensions)
