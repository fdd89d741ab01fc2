"""Last step of the TensorRT profile: what the encoder says, calibrated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import triton_python_backend_utils as pb_utils

# The stub ignores PYTHONPATH; a version finds the code that it brought along beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from scoring import ONNX_OUTPUTS, VersionError, calibrated, parse_spec, read_spec


class TritonPythonModel:
    """One instance; the calibration is the version's."""

    def initialize(self, _: dict[str, str]) -> None:
        """Read spec.json from beside this file."""
        try:
            self._spec = parse_spec(read_spec(Path(__file__).parent))
        except VersionError as error:
            raise pb_utils.TritonModelException(str(error)) from None

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer every request by itself: a few softmaxes."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        heads = {
            head: pb_utils.get_input_tensor_by_name(request, ONNX_OUTPUTS[head]).as_numpy()
            for head in self._spec.labels
        }
        tokens = pb_utils.get_input_tensor_by_name(request, "SEEN_TOKENS").as_numpy()
        scores = calibrated(self._spec, heads, tokens)
        tensors = {
            "OUTCOME": scores.outcome,
            "TASK_TYPE": scores.task_type,
            "DIMENSIONS": scores.dimensions,
            "COMPLEXITY": scores.complexity,
            "TOKENS": scores.tokens,
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in tensors.items()])
