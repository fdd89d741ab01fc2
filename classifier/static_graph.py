"""The ONNX graph of a static encoder, written node by node.

By hand rather than traced: the weights stay fp16 in the file, only the rows that a batch needs are widened to
fp32, and the graph reads like `static_encoder.py`. tests/unit/classifier/test_export.py holds the two together.
"""

import numpy as np
import onnx
from onnx import TensorProto

from classifier.labels import OUTCOMES, TASK_TYPES
from classifier.onnx_graph import Graph
from classifier.static_encoder import FIRST_FACTOR, LENGTH_STEPS, LOGITS, SECOND_FACTOR, StaticEncoder


def static_graph(model: StaticEncoder, *, with_dimensions: bool, graph: Graph | None = None) -> onnx.ModelProto:
    """The graph: input_ids, attention_mask int64 [batch, tokens] -> the heads' outputs, all float32."""
    graph = graph or Graph()
    ids, mask = "input_ids", graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    one = graph.number(1.0)
    weight = graph.node("Mul", graph.widened_rows("token_weight", model.token_weight, ids), mask)
    visible = graph.node("Cast", graph.node("Greater", weight, graph.number(0.0)), to=TensorProto.FLOAT)
    counted = graph.node("Add", graph.sum_of_row(visible), one)

    total = graph.node("Add", graph.sum_of_row(weight), graph.number(1e-6))
    vectors = graph.widened_rows("vectors", model.vectors, ids)
    mean = graph.node("Div", graph.weighted_sum(weight, vectors), total)
    dense = graph.node("MatMul", mean, graph.widened("dense_logits", model.dense_logits))

    own_logits = graph.widened_rows("token_logits", model.token_logits, ids)
    tokens = graph.node("Div", graph.weighted_sum(visible, own_logits), graph.node("Sqrt", counted))

    place = graph.node("Div", graph.node("Log", counted), graph.number(float(np.log(2))))
    place = graph.node("Min", place, graph.number(LENGTH_STEPS - 1.0))
    steps = graph.constant("length_steps", np.arange(LENGTH_STEPS, dtype=np.float32))
    hats = graph.node("Relu", graph.node("Sub", one, graph.node("Abs", graph.node("Sub", place, steps))))
    length = graph.node("MatMul", hats, graph.widened("length_logits", model.length_logits))

    logits = graph.widened("bias", model.bias)
    for part in (dense, tokens, _bigrams(graph, model, ids, visible), length):
        logits = graph.node("Add", logits, part)
    task, dimensions = len(OUTCOMES), len(OUTCOMES) + len(TASK_TYPES)
    graph.output("outcome_logits", graph.columns(logits, 0, task))
    graph.output("task_logits", graph.columns(logits, task, dimensions))
    if with_dimensions:
        graph.output("dimensions", graph.node("Sigmoid", graph.columns(logits, dimensions, LOGITS)))
    return graph.build("static_encoder")


def _bigrams(graph: Graph, model: StaticEncoder, ids: str, visible: str) -> str:
    mixed = graph.node(
        "Add",
        graph.node("Mul", graph.without_last(ids), graph.integer(FIRST_FACTOR)),
        graph.node("Mul", graph.without_first(ids), graph.integer(SECOND_FACTOR)),
    )
    place = graph.node("Mod", mixed, graph.integer(model.shape.bigrams))
    pairs = graph.node("Mul", graph.without_last(visible), graph.without_first(visible))
    summed = graph.weighted_sum(pairs, graph.widened_rows("bigram_logits", model.bigram_logits, place))
    counted = graph.node("Add", graph.sum_of_row(pairs), graph.number(1.0))
    return graph.node("Div", summed, graph.node("Sqrt", counted))
