"""Write an ONNX graph node by node, with weights that stay fp16 in the file.

By hand rather than traced: the graph reads like the torch module beside it, is the same on every torch version, and
holds no operator that TensorRT would not take.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from classifier.labels import INPUTS

OPSET: Final = 17
IR_VERSION: Final = 9  # what opset 17 came with; older runtimes read it too


class Graph:
    """Nodes and constants as they come; every method returns the name of the tensor that it made."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._outputs: dict[str, int] = {}

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401  # ONNX decides
        """One operator; its only output is called `output`, or after its kind."""
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """A constant of this name."""
        self._constants[name] = numpy_helper.from_array(value, name)
        return name

    def number(self, value: float) -> str:
        """An fp32 scalar."""
        return self.constant(f"number_{value:g}", np.array(value, dtype=np.float32))

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self.constant(f"integer_{value}", np.array(value, dtype=np.int64))

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(f"integers_{'_'.join(map(str, values))}", np.array(values, dtype=np.int64))

    def widened(self, name: str, tensor: torch.Tensor) -> str:
        """An fp16 constant as fp32."""
        return self.node("Cast", self._half(name, tensor), to=TensorProto.FLOAT)

    def widened_rows(self, name: str, table: torch.Tensor, rows: str) -> str:
        """Rows of an fp16 table, widened after the look-up and not before: the table stays small in memory."""
        chosen = self.node("Gather", self._half(name, table), rows, axis=0)
        return self.node("Cast", chosen, to=TensorProto.FLOAT)

    def _half(self, name: str, tensor: torch.Tensor) -> str:
        return self.constant(name, np.ascontiguousarray(tensor.detach().numpy().astype(np.float16)))

    def gelu(self, values: str) -> str:
        """The exact one, of the same shape."""
        error = self.node("Erf", self.node("Div", values, self.number(float(np.sqrt(2)))))
        gate = self.node("Add", error, self.number(1.0))
        return self.node("Mul", self.node("Mul", values, gate), self.number(0.5))

    def weighted_sum(self, weights: str, rows: str) -> str:
        """[n, tokens] and [n, tokens, k] -> [n, k]."""
        as_row = self.node("Unsqueeze", weights, self.integers(1))
        return self.node("Squeeze", self.node("MatMul", as_row, rows), self.integers(1))

    def sum_of_row(self, values: str) -> str:
        """[n, k] -> [n, 1]."""
        return self.node("ReduceSum", values, self.integers(1), keepdims=1)

    def columns(self, values: str, start: int, end: int) -> str:
        """Columns `start` to `end` of [n, k]; a negative end counts from the right."""
        return self.node("Slice", values, self.integers(start), self.integers(end), self.integers(1))

    def heads(self, values: str, widths: Sequence[int]) -> list[str]:
        """Columns of these widths, side by side in [n, sum of widths], as tensors of their own."""
        ends = list(accumulate(widths))
        return [self.columns(values, end - width, end) for width, end in zip(widths, ends, strict=True)]

    def without_last(self, values: str) -> str:
        """All columns but the last."""
        return self.columns(values, 0, -1)

    def without_first(self, values: str) -> str:
        """All columns but the first."""
        return self.columns(values, 1, np.iinfo(np.int64).max)

    def output(self, name: str, tensor: str, width: int) -> None:
        """One of OUTPUTS, a head's, [n, width]."""
        self.node("Identity", tensor, output=name)
        self._outputs[name] = width

    def build(self, name: str) -> onnx.ModelProto:
        """The checked model: INPUTS int64 [batch, tokens] -> float32 [batch, width] for each output."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
                for name, width in self._outputs.items()
            ],
            list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        built = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="classifier")
        onnx.checker.check_model(built, full_check=True)
        return built
