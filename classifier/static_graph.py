"""The ONNX graph of a static encoder, written node by node.

By hand rather than traced: the weights stay fp16 in the file, only the rows that a batch needs are widened to
fp32, and the graph reads like `static_encoder.py`. tests/unit/classifier/test_export.py holds the two together.
"""

import onnx
from onnx import TensorProto

from classifier.onnx_graph import Graph
from classifier.sparse_graph import sparse_logits
from classifier.static_encoder import StaticEncoder


def static_graph(model: StaticEncoder, *, with_dimensions: bool, graph: Graph | None = None) -> onnx.ModelProto:
    """The graph: input_ids, attention_mask int64 [batch, tokens] -> the heads' outputs, all float32."""
    graph = graph or Graph()
    ids, mask = "input_ids", graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    weight = graph.node("Mul", graph.widened_rows("token_weight", model.token_weight, ids), mask)
    visible = graph.node("Cast", graph.node("Greater", weight, graph.number(0.0)), to=TensorProto.FLOAT)

    total = graph.node("Add", graph.sum_of_row(weight), graph.number(1e-6))
    vectors = graph.widened_rows("vectors", model.vectors, ids)
    mean = graph.node("Div", graph.weighted_sum(weight, vectors), total)
    dense = graph.node("MatMul", mean, graph.widened("dense_logits", model.dense_logits))

    logits = graph.node("Add", dense, sparse_logits(graph, model.sparse, ids, visible))
    logits = graph.node("Add", logits, graph.widened("bias", model.bias))
    outcome, task, dimensions = graph.heads(logits, model.widths)
    outcomes, tasks, numbers = model.widths
    graph.output("outcome_logits", outcome, outcomes)
    graph.output("task_logits", task, tasks)
    if with_dimensions:
        graph.output("dimensions", graph.node("Sigmoid", dimensions), numbers)
    return graph.build("static_encoder")
