"""The ONNX nodes of a sparse expert, written like `sparse_expert.py`; both encoders' graphs have them."""

import numpy as np

from classifier.onnx_graph import Graph
from classifier.sparse_expert import FIRST_FACTOR, LENGTH_STEPS, SECOND_FACTOR, SparseExpert


def sparse_logits(graph: Graph, expert: SparseExpert, ids: str, visible: str) -> str:
    """From ids int64 and visible float32 [batch, tokens] -> [batch, all heads side by side]."""
    one = graph.number(1.0)
    counted = graph.node("Add", graph.sum_of_row(visible), one)
    own_logits = graph.widened_rows("token_logits", expert.token_logits, ids)
    tokens = graph.node("Div", graph.weighted_sum(visible, own_logits), graph.node("Sqrt", counted))

    place = graph.node("Div", graph.node("Log", counted), graph.number(float(np.log(2))))
    place = graph.node("Min", place, graph.number(LENGTH_STEPS - 1.0))
    steps = graph.constant("length_steps", np.arange(LENGTH_STEPS, dtype=np.float32))
    hats = graph.node("Relu", graph.node("Sub", one, graph.node("Abs", graph.node("Sub", place, steps))))
    length = graph.node("MatMul", hats, graph.widened("length_logits", expert.length_logits))
    return graph.node("Add", graph.node("Add", tokens, _bigrams(graph, expert, ids, visible)), length)


def _bigrams(graph: Graph, expert: SparseExpert, ids: str, visible: str) -> str:
    mixed = graph.node(
        "Add",
        graph.node("Mul", graph.without_last(ids), graph.integer(FIRST_FACTOR)),
        graph.node("Mul", graph.without_first(ids), graph.integer(SECOND_FACTOR)),
    )
    place = graph.node("Mod", mixed, graph.integer(expert.bigrams))
    pairs = graph.node("Mul", graph.without_last(visible), graph.without_first(visible))
    summed = graph.weighted_sum(pairs, graph.widened_rows("bigram_logits", expert.bigram_logits, place))
    counted = graph.node("Add", graph.sum_of_row(pairs), graph.number(1.0))
    return graph.node("Div", summed, graph.node("Sqrt", counted))
