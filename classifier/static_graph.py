"""The ONNX graph of a static encoder, written node by node.

By hand rather than traced: the weights stay fp16 in the file, only the rows that a batch needs are widened to
fp32, and the graph reads like `static_encoder.py`. tests/unit/classifier/test_export.py holds the two together.
"""

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from classifier.labels import OUTCOMES, TASK_TYPES
from classifier.static_encoder import FIRST_FACTOR, LENGTH_STEPS, LOGITS, SECOND_FACTOR, StaticEncoder

OPSET = 17
IR_VERSION = 9  # what opset 17 came with; older runtimes read it too


def static_graph(model: StaticEncoder) -> onnx.ModelProto:
    """The graph: input_ids, attention_mask int64 [batch, tokens] -> outcome_logits, task_logits float32."""
    graph = _Graph()
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
    graph.output("outcome_logits", graph.columns(logits, 0, len(OUTCOMES)))
    graph.output("task_logits", graph.columns(logits, len(OUTCOMES), LOGITS))
    return graph.build()


def _bigrams(graph: "_Graph", model: StaticEncoder, ids: str, visible: str) -> str:
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


class _Graph:
    """Nodes and constants as they come; every method returns the name of the tensor that it made."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401  # ONNX decides
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self._constants[name] = numpy_helper.from_array(value, name)
        return name

    def number(self, value: float) -> str:
        return self.constant(f"number_{value:g}", np.array(value, dtype=np.float32))

    def integer(self, value: int) -> str:
        return self.constant(f"integer_{value}", np.array(value, dtype=np.int64))

    def integers(self, value: int) -> str:
        return self.constant(f"integers_{value}", np.array([value], dtype=np.int64))

    def widened(self, name: str, tensor: torch.Tensor) -> str:
        """An fp16 constant as fp32."""
        return self.node("Cast", self._half(name, tensor), to=TensorProto.FLOAT)

    def widened_rows(self, name: str, table: torch.Tensor, rows: str) -> str:
        """Rows of an fp16 table, widened after the look-up and not before: the table stays small in memory."""
        chosen = self.node("Gather", self._half(name, table), rows, axis=0)
        return self.node("Cast", chosen, to=TensorProto.FLOAT)

    def _half(self, name: str, tensor: torch.Tensor) -> str:
        return self.constant(name, tensor.detach().numpy().astype(np.float16))

    def weighted_sum(self, weights: str, rows: str) -> str:
        """[n, tokens] and [n, tokens, k] -> [n, k]."""
        as_row = self.node("Unsqueeze", weights, self.integers(1))
        return self.node("Squeeze", self.node("MatMul", as_row, rows), self.integers(1))

    def sum_of_row(self, values: str) -> str:
        return self.node("ReduceSum", values, self.integers(1), keepdims=1)

    def columns(self, values: str, start: int, end: int) -> str:
        """Columns `start` to `end` of [n, k]; a negative end counts from the right."""
        return self.node("Slice", values, self.integers(start), self.integers(end), self.integers(1))

    def without_last(self, values: str) -> str:
        return self.columns(values, 0, -1)

    def without_first(self, values: str) -> str:
        return self.columns(values, 1, np.iinfo(np.int64).max)

    def output(self, name: str, tensor: str) -> None:
        self.node("Identity", tensor, output=name)

    def build(self) -> onnx.ModelProto:
        tokens = ["batch", "tokens"]
        graph = helper.make_graph(
            self._nodes,
            "static_encoder",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
                for name in ("input_ids", "attention_mask")
            ],
            [
                helper.make_tensor_value_info("outcome_logits", TensorProto.FLOAT, ["batch", len(OUTCOMES)]),
                helper.make_tensor_value_info("task_logits", TensorProto.FLOAT, ["batch", len(TASK_TYPES)]),
            ],
            list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        built = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="classifier")
        onnx.checker.check_model(built, full_check=True)
        return built
