"""A model that does no work: the ceiling of what Triton and its python backend can answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import triton_python_backend_utils as pb_utils

WIDTHS = {"OUTCOME": 4, "TASK_TYPE": 12, "DIMENSIONS": 6, "COMPLEXITY": 7}


class TritonPythonModel:
    """Reads the rows, as a classifier must, and answers uniform constants."""

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself."""
        return [answer(request) for request in requests]


def answer(request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
    """Return 1/width for every probability and no tokens, one row per row of TEXT."""
    rows = len(pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy())
    outputs = [
        pb_utils.Tensor(name, np.full((rows, width), 1 / width, dtype=np.float32)) for name, width in WIDTHS.items()
    ]
    outputs.append(pb_utils.Tensor("TOKENS", np.zeros((rows, 2), dtype=np.int32)))
    return pb_utils.InferenceResponse(output_tensors=outputs)
