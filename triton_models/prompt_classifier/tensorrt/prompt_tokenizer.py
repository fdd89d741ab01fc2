"""First step of the TensorRT profile: texts to token ids, each request padded to a length bucket.

Triton's batcher merges requests of equal shape only, so a request is as wide as the bucket of its longest row.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

# The stub ignores PYTHONPATH; a version finds the code that it brought along beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from scoring import BUCKETS, PromptTokenizer, VersionError, decode, pad, parse_spec, read_spec


class TritonPythonModel:
    """One instance of the tokenizer."""

    def initialize(self, _: dict[str, str]) -> None:
        """Load tokenizer.json and spec.json from beside this file."""
        version_dir = Path(__file__).parent
        try:
            self._max_tokens = parse_spec(read_spec(version_dir)).max_tokens
            self._tokenizer = PromptTokenizer(version_dir / "tokenizer.json", self._max_tokens)
        except VersionError as error:
            raise pb_utils.TritonModelException(str(error)) from None

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer every request by itself; one that cannot be read fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        try:
            texts = decode(pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy())
        except ValueError as error:
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))
        ids, tokens = self._tokenizer.tokenize(texts)
        input_ids, mask = pad(ids)
        missing = bucket(input_ids.shape[1], self._max_tokens) - input_ids.shape[1]
        tensors = {
            "INPUT_IDS": np.pad(input_ids, ((0, 0), (0, missing))),
            "ATTENTION_MASK": np.pad(mask, ((0, 0), (0, missing))),
            "TOKENS": tokens,
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in tensors.items()])


def bucket(tokens: int, max_tokens: int) -> int:
    """Return the width to which rows of at most so many tokens are padded."""
    return next((edge for edge in BUCKETS if tokens <= edge < max_tokens), max_tokens)
