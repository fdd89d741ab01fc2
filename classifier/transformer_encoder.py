"""A transformer of BERT's family with the classifier's three heads: what is fine-tuned for a GPU.

    ids -> word + position + segment -> layers of attention and feed-forward -> mean over tokens -> heads
    ids -> sparse expert -> the same heads, added

The body is in plain torch, with the parameter names of the published checkpoints, so that their weights load as they
are. `transformer_graph.py` writes the same computation as ONNX; tests/unit/classifier/test_transformer.py holds the two
together.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from classifier.labels import TASK_TYPES
from classifier.sparse_expert import SparseExpert, head_widths, table

# What hides a token from attention. Finite, and within fp16's range: a row of padding only stays a number.
HIDDEN: Final = -10_000.0


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """Sizes: vocabulary entries, width, layers, attention heads, width of the feed-forward, longest prompt.

    `bigrams` are the rows of the sparse expert's table of pairs.
    """

    vocabulary: int
    width: int
    layers: int
    attention_heads: int
    inner: int
    positions: int
    epsilon: float = 1e-12  # of the layer norms
    bigrams: int = 1 << 14
    tasks: int = len(TASK_TYPES)


class Embeddings(nn.Module):
    """ids int64 [n, tokens] -> the normed sum of word, position and segment vectors, [n, tokens, width]."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.width)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.token_type_embeddings = nn.Embedding(2, shape.width)  # a prompt is segment 0 throughout
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        positions = self.position_embeddings.weight[: ids.shape[1]]
        normed: Tensor = self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])
        return normed


class Projections(nn.Module):
    """Query, key and value of every attention head, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)


class Output(nn.Module):
    """A projection to the model's width, and the norm after the residual."""

    def __init__(self, inputs: int, shape: TransformerShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)


class Attention(nn.Module):
    """hidden [n, tokens, width], bias [n, 1, 1, tokens] -> what each token takes from the others, as `hidden`."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.heads = shape.attention_heads
        self.self = Projections(shape.width)
        self.output = Output(shape.width, shape)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """See the class; before the residual."""
        rows, tokens, width = hidden.shape
        query, key, value = (
            projection(hidden).view(rows, tokens, self.heads, -1).transpose(1, 2)
            for projection in (self.self.query, self.self.key, self.self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        projected: Tensor = self.output.dense(mixed.transpose(1, 2).reshape(rows, tokens, width))
        return projected


class Intermediate(nn.Module):
    """The wide half of the feed-forward."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.inner)


class Layer(nn.Module):
    """Attention, then feed-forward, each with residual and norm; hidden [n, tokens, width] in and out."""

    def __init__(self, shape: TransformerShape, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.intermediate = Intermediate(shape)
        self.output = Output(shape.inner, shape)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """See the class."""
        hidden = self.attention.output.LayerNorm(hidden + self.dropout(self.attention(hidden, bias)))
        inner = F.gelu(self.intermediate.dense(hidden))
        normed: Tensor = self.output.LayerNorm(hidden + self.dropout(self.output.dense(inner)))
        return normed


class Layers(nn.Module):
    """All layers, in order."""

    def __init__(self, shape: TransformerShape, dropout: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(shape, dropout) for _ in range(shape.layers)])

    def __iter__(self) -> Iterator[Layer]:
        return iter(cast("Iterable[Layer]", self.layer))


class Bert(nn.Module):
    """The body: ids and mask int64 [n, tokens] -> the mean of the tokens' last vectors, float32 [n, width]."""

    def __init__(self, shape: TransformerShape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.encoder = Layers(shape, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        hidden = self.dropout(self.embeddings(ids))
        seen = mask.to(hidden.dtype)
        bias = ((1 - seen) * HIDDEN)[:, None, None, :]
        for layer in self.encoder:
            hidden = layer(hidden, bias)
        pooled: Tensor = (hidden * seen[:, :, None]).sum(dim=1) / seen.sum(dim=1, keepdim=True).clamp(min=1)
        return pooled


class TransformerEncoder(nn.Module):
    """ids and mask int64 [n, tokens] -> outcome logits [n, 4], task logits [n, tasks], dimensions [n, 6] in 0..1.

    Each head adds what the body says, through a linear layer, and what the sparse expert says. Their shares in the
    average are part of the weights.
    """

    def __init__(self, shape: TransformerShape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.widths = head_widths(shape.tasks)
        self.body = Bert(shape, dropout)
        self.outcome, self.task, self.dimensions = (nn.Linear(shape.width, width) for width in self.widths)
        self.sparse = SparseExpert(shape.vocabulary, shape.bigrams, sum(self.widths))
        self.visible = table(shape.vocabulary)  # 1 for each token that the sparse expert sees

    def heads(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """The linear layers over the body."""
        return self.outcome, self.task, self.dimensions

    def sparse_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """What the sparse expert says, all heads side by side, [n, sum of widths]."""
        logits: Tensor = self.sparse(ids, self.visible[ids] * mask)
        return logits

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads; see the class. A head that was not trained is left out by the checkpoint's spec."""
        pooled = self.body(ids, mask)
        sparse = torch.split(self.sparse_logits(ids, mask), list(self.widths), dim=1)
        outcome, task, dimensions = (head(pooled) + said for head, said in zip(self.heads(), sparse, strict=True))
        return outcome, task, torch.sigmoid(dimensions)
