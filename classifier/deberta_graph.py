"""The ONNX graph of a DeBERTa-v3 body, written out of a checkpoint's tensors; fp32, as they are.

A token attends by content to content, and by content to the distance of the other (c2p), and is attended the same way
(p2c). Distances fall into buckets: each its own up to half of them, then in logarithmic steps.
tests/unit/classifier/test_import_nvidia.py holds it against the `transformers` library.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from classifier.onnx_graph import Graph

MAX_TOKENS: Final = 512
HEAD_SIZE: Final = 64  # of every published DeBERTa-v3
EPSILON: Final = 1e-7
HIDDEN: Final = float(np.finfo(np.float32).min)

Tensor = NDArray[np.float32]


class Checkpoint:
    """Tensors by name; remembers which were read. A missing one raises KeyError."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.unread = set(tensors)

    def __getitem__(self, name: str) -> Tensor:
        self.unread.discard(name)
        return self._tensors[name]

    def layers(self) -> int:
        """How many layers there are, from their names."""
        numbers = [name.split("layer.")[1].partition(".")[0] for name in self._tensors if ".layer." in name]
        return 1 + max(map(int, numbers), default=-1)


def deberta_body(graph: Graph, checkpoint: Checkpoint) -> str:
    """From input_ids and attention_mask int64 [n, tokens] -> the mean of the tokens' last vectors, [n, width]."""
    seen = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    words = graph.constant("words", checkpoint["backbone.embeddings.word_embeddings.weight"])
    hidden = graph.node("Gather", words, "input_ids", axis=0)
    hidden = _norm(graph, checkpoint, "backbone.embeddings.LayerNorm", hidden)
    hidden = graph.node("Mul", hidden, graph.node("Unsqueeze", seen, graph.integers(2)))
    distances = _distances(checkpoint)
    places = _places(graph, len(distances) // 2)
    visible = graph.node("Cast", graph.node("Unsqueeze", "attention_mask", graph.integers(1, 2)), to=TensorProto.BOOL)
    for number in range(checkpoint.layers()):
        name = f"backbone.encoder.layer.{number}"
        mixed = _attention(graph, checkpoint, name, hidden, visible, distances, places)
        mixed = linear(graph, checkpoint, f"{name}.attention.output.dense", mixed)
        added = graph.node("Add", mixed, hidden)
        hidden = _norm(graph, checkpoint, f"{name}.attention.output.LayerNorm", added)
        inner = graph.gelu(linear(graph, checkpoint, f"{name}.intermediate.dense", hidden))
        added = graph.node("Add", linear(graph, checkpoint, f"{name}.output.dense", inner), hidden)
        hidden = _norm(graph, checkpoint, f"{name}.output.LayerNorm", added)
    counted = graph.node("Max", graph.sum_of_row(seen), graph.number(1.0))
    return graph.node("Div", graph.weighted_sum(seen, hidden), counted)


def linear(graph: Graph, checkpoint: Checkpoint, name: str, values: str) -> str:
    """A dense layer of the checkpoint."""
    weight = graph.constant(f"{name}.weight", np.ascontiguousarray(checkpoint[f"{name}.weight"].T))
    bias = graph.constant(f"{name}.bias", checkpoint[f"{name}.bias"])
    return graph.node("Add", graph.node("MatMul", values, weight), bias)


def _attention(
    graph: Graph,
    checkpoint: Checkpoint,
    name: str,
    hidden: str,
    visible: str,
    distances: Tensor,
    places: tuple[str, str],
) -> str:
    """Every head by itself: [n, tokens, width] -> the same shape."""
    by_head = graph.integers(0, 0, -1, HEAD_SIZE)  # 0: as it was

    def split(part: str) -> str:
        projected = linear(graph, checkpoint, f"{name}.attention.self.{part}_proj", hidden)
        return graph.node("Transpose", graph.node("Reshape", projected, by_head), perm=[0, 2, 1, 3])

    query, key, value = split("query"), split("key"), split("value")
    likeness = graph.node("MatMul", query, graph.node("Transpose", key, perm=[0, 1, 3, 2]))
    for content, part, place in ((query, "key", places[0]), (key, "query", places[1])):
        far = graph.constant(f"{name}.{part}_of_distance", _of_distance(checkpoint, name, part, distances))
        by_distance = graph.node("MatMul", content, far)  # [n, heads, tokens, distances]
        flat = graph.node("Reshape", by_distance, graph.integers(0, 0, -1))
        likeness = graph.node("Add", likeness, graph.node("Gather", flat, place, axis=2))
    likeness = graph.node("Div", likeness, graph.number(float(np.sqrt(3 * HEAD_SIZE))))  # three kinds of likeness
    weights = graph.node("Softmax", graph.node("Where", visible, likeness, graph.number(HIDDEN)), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", weights, value), perm=[0, 2, 1, 3])
    return graph.node("Reshape", mixed, graph.integers(0, 0, -1))


def _distances(checkpoint: Checkpoint) -> Tensor:
    """The normed vector of each bucket of distances, [2 * buckets, width]."""
    vectors = checkpoint["backbone.encoder.rel_embeddings.weight"].astype(np.float64)
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    name = "backbone.encoder.LayerNorm"
    scaled: Tensor = (normed * checkpoint[f"{name}.weight"] + checkpoint[f"{name}.bias"]).astype(np.float32)
    return scaled


def _of_distance(checkpoint: Checkpoint, name: str, part: str, distances: Tensor) -> Tensor:
    """What a layer's projection makes of each bucket, by head: [1, heads, head size, 2 * buckets]."""
    weight, bias = (checkpoint[f"{name}.attention.self.{part}_proj.{kind}"] for kind in ("weight", "bias"))
    projected = distances @ weight.T + bias
    return np.ascontiguousarray(projected.reshape(1, len(distances), -1, HEAD_SIZE).transpose(0, 2, 3, 1))


def _places(graph: Graph, buckets: int) -> tuple[str, str]:
    """Where [tokens x distances], laid flat, holds the likeness at the distance from token i to j: int64 [i, j].

    The first is in the row of i (c2p), the second in that of j (p2c). Cut from a constant: what follows from shapes
    only, ONNX Runtime would compute on the CPU.
    """
    token = np.arange(MAX_TOKENS)
    bucket = np.clip(_bucket(token[:, None] - token[None, :], buckets) + buckets, 0, 2 * buckets - 1)
    tokens = graph.node("Slice", graph.node("Shape", "input_ids"), graph.integers(1), graph.integers(2))
    square = graph.node("Concat", tokens, tokens, axis=0)
    first, second = (
        graph.node(
            "Slice",
            graph.constant(f"{name}_places", row * 2 * buckets + bucket),
            graph.integers(0, 0),
            square,
            graph.integers(0, 1),
        )
        for name, row in (("own", token[:, None]), ("other", token[None, :]))
    )
    return first, second


def _bucket(distance: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """The bucket of each distance, negative for negative ones; in fp32, as the library computes it."""
    middle = buckets // 2
    far = np.maximum(np.abs(distance), middle).astype(np.float32)
    steps = np.log(far / middle) / np.log(np.float32((MAX_TOKENS - 1) / middle)) * (middle - 1)
    logarithmic = (np.ceil(steps) + middle).astype(np.int64) * np.sign(distance)
    return np.where(np.abs(distance) <= middle, distance, logarithmic)


def _norm(graph: Graph, checkpoint: Checkpoint, name: str, values: str) -> str:
    weight, bias = (graph.constant(f"{name}.{part}", checkpoint[f"{name}.{part}"]) for part in ("weight", "bias"))
    return graph.node("LayerNormalization", values, weight, bias, axis=-1, epsilon=EPSILON)
