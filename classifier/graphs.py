"""The ONNX graph of an encoder, written out of its weights, and read back into them."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from classifier.onnx_graph import Graph
from classifier.static_encoder import StaticEncoder
from classifier.static_graph import static_graph
from classifier.transformer_encoder import TransformerEncoder
from classifier.transformer_graph import transformer_graph


def graph_of(
    model: StaticEncoder | TransformerEncoder, *, with_dimensions: bool, graph: Graph | None = None
) -> onnx.ModelProto:
    """The graph of either kind, with the dimensions head or without."""
    if isinstance(model, StaticEncoder):
        return static_graph(model, with_dimensions=with_dimensions, graph=graph)
    return transformer_graph(model, with_dimensions=with_dimensions, graph=graph)


def read_graph(path: Path, model: StaticEncoder | TransformerEncoder, *, with_dimensions: bool) -> None:
    """Put the weights of a graph that `graph_of` wrote into a model of its shape; raises KeyError or RuntimeError."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # what no graph holds, such as the vectors of a second segment
        graph_of(model, with_dimensions=with_dimensions, graph=_Reader(constants))


class _Reader(Graph):
    """Writes the same graph again, but takes every weight from the old one: no second list of names to keep."""

    def __init__(self, constants: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._old = constants

    def _half(self, name: str, tensor: Tensor) -> str:
        tensor.copy_(torch.from_numpy(self._old[name].astype(np.float32)))  # a view: this fills the model
        return super()._half(name, tensor)
