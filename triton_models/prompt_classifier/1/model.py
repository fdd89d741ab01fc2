"""Triton's python backend: merge what Triton batched into one scoring call, answer each request by itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

# The stub ignores PYTHONPATH; a version finds the code that it brought along beside this file.
sys.path.insert(0, str(Path(__file__).parent))
# Before the import: from 1.29 on ONNX Runtime's Linux builds report to their maker unless this is set.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from runtime import open_sessions
from scoring import Scorer, Scores, VersionError, decode, read_spec

COUNTERS = {
    "rows": "Rows scored",
    "rows_truncated": "Rows that lost tokens because they exceeded max_tokens",
    "tokens": "Tokens seen by the model, padding not included",
    "padded_tokens": "Padding tokens that the model computed for nothing",
    "requests_failed": "Requests answered with an error; Triton itself counts them as successes",
}


class TritonPythonModel:
    """One instance of the classifier."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version; any trouble is one TritonModelException whose message says what to do."""
        version_dir = Path(__file__).parent
        try:
            running = open_sessions(
                version_dir,
                args["model_instance_kind"],
                args["model_instance_device_id"],
                lambda line: pb_utils.Logger.log_warn(f"{args['model_instance_name']}: {line}"),
            )
            self.scorer = Scorer.load(version_dir, sessions=running.sessions)
            check_config(json.loads(args["model_config"]), read_spec(version_dir), args["model_version"])
        except VersionError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self.counters = Counters(args["model_name"], args["model_version"])
        self.counters.tell_nodes(running.nodes)
        pb_utils.Logger.log_info(f"{args['model_instance_name']}: {running.description}")

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer every request. A request that cannot be read, or a row that cannot be scored, fails alone."""
        responses: list[pb_utils.InferenceResponse] = [None] * len(requests)
        readable: dict[int, list[str]] = {}
        for index, request in enumerate(requests):
            try:
                readable[index] = decode(pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy())
            except ValueError as error:
                responses[index] = self._failure(str(error))
        try:
            merged = [text for texts in readable.values() for text in texts]
            scores = self.scorer.score(merged)
        except Exception:  # whatever a poisoned row raised, its mates are answered
            for index, texts in readable.items():
                responses[index] = self._score_alone(texts)
            return responses
        self.counters.add(scores)
        start = 0
        for index, texts in readable.items():
            responses[index] = response(scores, start, start + len(texts))
            start += len(texts)
        return responses

    def _score_alone(self, texts: Sequence[str]) -> pb_utils.InferenceResponse:
        """Score one request row by row. A row that cannot be scored is NaN; an error only when none can."""
        rows = [self._score_row(text) for text in texts]
        if not any(rows):
            return self._failure("none of the rows could be scored")
        scores = Scores.joined([row or Scores.unscored(self.scorer.spec) for row in rows])
        self.counters.add(scores)
        return response(scores, 0, len(texts))

    def _score_row(self, text: str) -> Scores | None:
        try:
            return self.scorer.score([text])
        except Exception as error:
            # The type only: a message could quote the prompt.
            pb_utils.Logger.log_error(f"a row failed in scoring: {type(error).__name__}")
            return None

    def _failure(self, message: str) -> pb_utils.InferenceResponse:
        self.counters.add_failure()
        return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))


class Counters:
    """The model's own metrics. Triton forgets a family to which nobody holds a reference."""

    def __init__(self, model: str, version: str) -> None:
        self._families = {
            name: pb_utils.MetricFamily(
                name=f"prompt_classifier_{name}_total", description=text, kind=pb_utils.MetricFamily.COUNTER
            )
            for name, text in COUNTERS.items()
        }
        self._labels = {"model": model, "version": version}
        self._counters = {name: family.Metric(labels=self._labels) for name, family in self._families.items()}
        self._nodes_family = pb_utils.MetricFamily(
            name="prompt_classifier_nodes",
            description="Nodes of the model's graph that run on an ONNX Runtime provider",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        self._nodes: list[Any] = []

    def tell_nodes(self, nodes: Mapping[str, int]) -> None:
        """Publish which provider runs how many nodes."""
        for provider, count in nodes.items():
            gauge = self._nodes_family.Metric(labels={**self._labels, "provider": provider})
            gauge.set(count)
            self._nodes.append(gauge)

    def add(self, scores: Scores) -> None:
        """Count one scoring call."""
        self._counters["rows"].increment(len(scores.tokens))
        self._counters["rows_truncated"].increment(int((scores.tokens[:, 1] > 0).sum()))
        self._counters["tokens"].increment(int(scores.tokens[:, 0].sum()))
        self._counters["padded_tokens"].increment(scores.padded_tokens)

    def add_failure(self) -> None:
        """Count one request that is answered with an error."""
        self._counters["requests_failed"].increment(1)


def response(scores: Scores, start: int, stop: int) -> pb_utils.InferenceResponse:
    """Return the answer to one request: rows start..stop of the merged scores."""
    outputs = {
        "OUTCOME": scores.outcome,
        "TASK_TYPE": scores.task_type,
        "DIMENSIONS": scores.dimensions,
        "COMPLEXITY": scores.complexity,
        "TOKENS": scores.tokens,
    }
    return pb_utils.InferenceResponse(
        output_tensors=[pb_utils.Tensor(name, rows[start:stop]) for name, rows in outputs.items()]
    )


def check_config(config: Mapping[str, Any], spec: object, version: str) -> None:
    """Refuse a model config whose `spec`, which the router reads, is not the one beside the weights.

    While two versions are served, one has the parameter `spec` and the other `spec_2`, with its own number.
    """
    parameters = config.get("parameters", {})
    text = parameters.get(f"spec_{version}", parameters.get("spec", {})).get("string_value", "")
    try:
        same = json.loads(text) == spec
    except ValueError:
        same = False
    if not same:
        raise VersionError(
            "the parameter `spec` in the model config differs from spec.json beside the weights: "
            "run `python -m classifier render-config`"
        )
