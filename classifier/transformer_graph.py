"""The ONNX graph of a transformer encoder, written node by node like `transformer_encoder.py`."""

import numpy as np
import onnx
from onnx import TensorProto
from torch import nn

from classifier.onnx_graph import Graph
from classifier.sparse_graph import sparse_logits
from classifier.transformer_encoder import HIDDEN, Attention, Bert, Embeddings, Layer, TransformerEncoder


def transformer_graph(
    model: TransformerEncoder, *, with_dimensions: bool, graph: Graph | None = None
) -> onnx.ModelProto:
    """The graph: input_ids, attention_mask int64 [batch, tokens] -> the heads' outputs, all float32."""
    graph = graph or Graph()
    pooled = _body(graph, model.body)
    visible = graph.widened_rows("visible", model.visible, "input_ids")
    visible = graph.node("Mul", visible, graph.node("Cast", "attention_mask", to=TensorProto.FLOAT))
    outcome, task, dimensions = graph.heads(sparse_logits(graph, model.sparse, "input_ids", visible), model.widths)

    def head(name: str, linear: nn.Linear, sparse: str) -> str:
        return graph.node("Add", _linear(graph, name, linear, pooled), sparse)

    outcomes, tasks, numbers = model.widths
    graph.output("outcome_logits", head("outcome", model.outcome, outcome), outcomes)
    graph.output("task_logits", head("task", model.task, task), tasks)
    if with_dimensions:
        graph.output("dimensions", graph.node("Sigmoid", head("dimensions", model.dimensions, dimensions)), numbers)
    return graph.build("transformer_encoder")


def _body(graph: Graph, body: Bert) -> str:
    seen = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    unseen = graph.node("Sub", graph.number(1.0), seen)
    bias = graph.node("Unsqueeze", graph.node("Mul", unseen, graph.number(HIDDEN)), graph.integers(1, 2))
    hidden = _embeddings(graph, body.embeddings)
    for number, layer in enumerate(body.encoder):
        hidden = _layer(graph, f"layer_{number}", layer, hidden, bias)
    counted = graph.node("Max", graph.sum_of_row(seen), graph.number(1.0))
    return graph.node("Div", graph.weighted_sum(seen, hidden), counted)


def _embeddings(graph: Graph, tables: Embeddings) -> str:
    tokens = graph.node("Slice", graph.node("Shape", "input_ids"), graph.integers(1), graph.integers(2))
    positions = graph.widened("positions", tables.position_embeddings.weight)
    positions = graph.node("Slice", positions, graph.integers(0), tokens, graph.integers(0))
    segment = graph.widened("segment", tables.token_type_embeddings.weight[0])
    words = graph.widened_rows("words", tables.word_embeddings.weight, "input_ids")
    summed = graph.node("Add", graph.node("Add", words, positions), segment)
    return _norm(graph, "embeddings_norm", tables.LayerNorm, summed)


def _layer(graph: Graph, name: str, layer: Layer, hidden: str, bias: str) -> str:
    mixed = _attention(graph, name, layer.attention, hidden, bias)
    hidden = _norm(graph, f"{name}_middle_norm", layer.attention.output.LayerNorm, graph.node("Add", mixed, hidden))
    inner = graph.gelu(_linear(graph, f"{name}_inner", layer.intermediate.dense, hidden))
    inner = _linear(graph, f"{name}_outer", layer.output.dense, inner)
    return _norm(graph, f"{name}_norm", layer.output.LayerNorm, graph.node("Add", inner, hidden))


def _attention(graph: Graph, name: str, attention: Attention, hidden: str, bias: str) -> str:
    """Every head by itself: [batch, tokens, width] -> the same shape."""
    heads, width = attention.heads, attention.output.dense.out_features
    by_head = graph.integers(0, 0, heads, width // heads)  # 0: as it was

    def split(part: str, linear: nn.Linear, perm: list[int]) -> str:
        rows = graph.node("Reshape", _linear(graph, f"{name}_{part}", linear, hidden), by_head)
        return graph.node("Transpose", rows, perm=perm)

    query = split("query", attention.self.query, [0, 2, 1, 3])
    key = split("key", attention.self.key, [0, 2, 3, 1])
    value = split("value", attention.self.value, [0, 2, 1, 3])
    scale = graph.number(float(np.sqrt(width // heads)))
    likeness = graph.node("Add", graph.node("Div", graph.node("MatMul", query, key), scale), bias)
    mixed = graph.node("MatMul", graph.node("Softmax", likeness, axis=-1), value)
    side_by_side = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    joined = graph.node("Reshape", side_by_side, graph.integers(0, 0, width))
    return _linear(graph, f"{name}_mixed", attention.output.dense, joined)


def _linear(graph: Graph, name: str, linear: nn.Linear, values: str) -> str:
    product = graph.node("MatMul", values, graph.widened(f"{name}_weight", linear.weight.T))
    return graph.node("Add", product, graph.widened(f"{name}_bias", linear.bias))


def _norm(graph: Graph, name: str, norm: nn.LayerNorm, values: str) -> str:
    weight, bias = graph.widened(f"{name}_weight", norm.weight), graph.widened(f"{name}_bias", norm.bias)
    return graph.node("LayerNormalization", values, weight, bias, axis=-1, epsilon=norm.eps)
