"""What a CPU serves of a transformer: its graph with int8 matrices, derived by the code that serves it."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime
import torch
from torch import Tensor

from classifier.export import CODE, rounded
from classifier.graphs import graph_of
from classifier.labels import INPUTS, OUTPUTS
from classifier.predict import load_code
from classifier.transformer_encoder import TransformerEncoder


def int8_model(model: TransformerEncoder) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """The same function of ids and mask as `model`, all heads, computed as on a CPU that serves."""
    with TemporaryDirectory() as directory:
        source, target = Path(directory) / "model.onnx", Path(directory) / "model.int8.onnx"
        onnx.save(graph_of(rounded(model), with_dimensions=True), source)
        load_code(CODE, "int8").derive(source, target)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(target.read_bytes(), options, providers=["CPUExecutionProvider"])

    def say(ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True))
        return tuple(torch.from_numpy(output) for output in session.run(list(OUTPUTS), inputs))

    return say
