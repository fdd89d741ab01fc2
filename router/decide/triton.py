"""The classifiers that Triton serves, over gRPC: one call for N prompts. Knows nothing of HTTP.

`TritonClassifier` speaks this project's contract (`TEXT` in; `OUTCOME`, `TASK_TYPE`, `DIMENSIONS`, `TOKENS` out).
`LabelClassifier` speaks NVIDIA LLM Router v1's (`INPUT` in; `OUTPUT`, one score per label), one prompt a call:
those models read the first row only and would silently answer for it.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from time import monotonic
from typing import Any, Protocol

import grpc
import grpc.aio
import msgspec
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from router.decide.classification import OUTCOMES, Classification, Labels, Version
from router.errors import ClassifierError

# A router that lost Triton must find it again within a second, not after gRPC's default of up to two minutes.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # what gRPC calls so is how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.lb_policy_name", "round_robin"),  # a name may have several addresses: the replicas of Triton
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),  # prompts go to Triton and to nobody in between, whatever the environment says
)
_REASONS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.INTERNAL: "unhealthy",
    grpc.StatusCode.UNKNOWN: "unhealthy",
    grpc.StatusCode.INVALID_ARGUMENT: "unhealthy",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "queue_full",
}

# Which outputs are asked for, and the only type that each may have.
_OUTPUTS = {"OUTCOME": "FP32", "TASK_TYPE": "FP32", "DIMENSIONS": "FP32", "TOKENS": "INT32"}
_LABEL_OUTPUTS = {"OUTPUT": "FP32"}
_FORMATS = {"FP32": "f", "INT32": "i"}

ClassifyResult = Classification | ClassifierError


class Classifier(Protocol):
    """Scores prompts; `triton.py` has two, a test may have its own."""

    async def labels(self) -> Labels:
        """Return what the served model can say; ClassifierError when it cannot be asked."""
        ...

    async def classify(self, texts: Sequence[str]) -> Sequence[ClassifyResult]:
        """Return one result per text, in order; raises ClassifierError when the whole call failed."""
        ...


class TritonConnection:
    """One gRPC channel to one Triton, shared by all its classifiers. Use it as an async context manager."""

    def __init__(self, url: str, deadline_s: float) -> None:
        self.url = url
        self._deadline_s = deadline_s
        self._stub: Any = None

    async def __aenter__(self) -> TritonConnection:
        self._channel = grpc.aio.insecure_channel(self.url, options=_CHANNEL_OPTIONS)
        self._stub = GRPCInferenceServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def infer(self, request: Any) -> Any:  # noqa: ANN401 - protobuf messages have no types
        """Send one ModelInferRequest; raises ClassifierError with the reason.

        A replica of Triton that ends knows no model any more, until it is gone; then another one's turn is next. So it
        is when a connection breaks or cannot be made. gRPC's own retries would do, but some calls then came back at
        their deadline only.
        """
        until = monotonic() + self._deadline_s
        try:
            return await self._rpc(self._stub.ModelInfer, request, self._deadline_s)
        except ClassifierError as error:
            if error.reason not in {"not_found", "unavailable"}:
                raise
        return await self._rpc(self._stub.ModelInfer, request, until - monotonic())

    async def model_config(self, model: str, version: str = "") -> Any:  # noqa: ANN401
        """Return the served model's ModelConfig, of any version or of one; raises ClassifierError with the reason."""
        request = pb.ModelConfigRequest(name=model, version=version)
        response = await self._rpc(self._stub.ModelConfig, request, max(self._deadline_s, 1.0))
        return response.config

    async def _rpc(self, method: Any, request: Any, timeout_s: float) -> Any:  # noqa: ANN401
        try:  # gRPC's own deadline ends a call: whoever cancels the task that awaits one loses 900 bytes for ever
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise ClassifierError(_reason(error), f"Triton at {self.url}: {_reason(error)}.") from None
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a channel that was closed under us
            raise ClassifierError("unavailable", f"Triton at {self.url}: {type(error).__name__}.") from None


def _reason(error: grpc.aio.AioRpcError) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "maximum queue size" in details:
        return "queue_full"
    if code is grpc.StatusCode.UNAVAILABLE and ("not ready" in details or "not found" in details):
        return "not_found"
    return _REASONS.get(code, "unavailable")


class TritonClassifier:
    """Scores prompts with a model of this project's Triton contract: one `version`, or "" for the newest."""

    def __init__(self, connection: TritonConnection, model: str, version: str = "") -> None:
        self._connection = connection
        self._model = model
        self._version = version
        self._labels: dict[Version, Labels] = {}

    async def labels(self) -> Labels:
        """Read the labels from the served model's configuration; ClassifierError when it has none."""
        return await self._labels_of_version(self._version)

    async def classify(self, texts: Sequence[str]) -> Sequence[ClassifyResult]:
        """Score N texts in one call. A row that came back as NaN or out of range fails alone."""
        response = await self._connection.infer(_request(self._model, "TEXT", texts, _OUTPUTS, self._version))
        version = Version(response.model_version)
        labels = self._labels.get(version)
        if labels is None:  # the first answer, or a version that was promoted just now
            labels = self._labels[version] = await self._labels_of_version(version)
        columns = _columns(response, len(texts), _OUTPUTS)
        if _sound(labels, *columns):
            return [_classification(labels, version, *row) for row in zip(*columns, strict=True)]
        return [
            _classification(labels, version, *row)
            if _sound(labels, *([values] for values in row))
            else ClassifierError("invalid_output", "The classifier answered NaN, or not one score per label.")
            for row in zip(*columns, strict=True)
        ]

    async def _labels_of_version(self, version: str) -> Labels:
        """Read the `spec_2` of version 2, which is there while two versions are served, or else the one `spec`."""
        parameters = (await self._connection.model_config(self._model, version)).parameters
        own = f"spec_{version}"
        return _labels_of(parameters[own if own in parameters else "spec"].string_value, self._model)


class _Spec(msgspec.Struct):
    outcomes: tuple[str, ...] | None
    task_types: tuple[str, ...] | None
    dimensions: tuple[str, ...] | None


def _labels_of(spec_text: str, model: str) -> Labels:
    try:
        spec = msgspec.convert(json.loads(spec_text), _Spec)
    except (ValueError, msgspec.ValidationError):
        raise ClassifierError(
            "contract", f"model {model!r} has no readable 'spec' in its Triton configuration."
        ) from None
    if spec.outcomes and sorted(spec.outcomes) != sorted(OUTCOMES):
        raise ClassifierError("contract", f"model {model!r} has outcomes {spec.outcomes}, expected {OUTCOMES}.")
    labels = Labels(spec.outcomes or (), spec.task_types or (), spec.dimensions or ())
    unfit = next((name for name in labels.task_types if not re.fullmatch("[ -~]{1,64}", name)), None)
    if unfit is not None:  # a task's name becomes a header and a metric's label
        raise ClassifierError(
            "contract", f"model {model!r} has task type {unfit!r}, allowed are 1 to 64 printable ASCII characters."
        )
    return labels


Column = Sequence[tuple[Any, ...]]
"""One output of the model: each row's values."""


def _sound(labels: Labels, outcome: Column, task_type: Column, dimensions: Column, tokens: Column) -> bool:
    """Whether all these rows are what the labels promise: a value for each, within bounds, outcomes adding up to 1."""
    heads = ((labels.outcomes, outcome, 1.0), (labels.task_types, task_type, 1.0), (labels.dimensions, dimensions, 5.0))
    for names, rows, most in heads:
        if names and (len(names) != len(rows[0]) or not _within(list(chain.from_iterable(rows)), most + 0.001)):
            return False
    if labels.outcomes and not all(abs(sum(row) - 1.0) <= 0.01 for row in outcome):
        return False
    return len(tokens[0]) == 2


def _classification(
    labels: Labels,
    version: Version,
    outcome: tuple[float, ...],
    task_type: tuple[float, ...],
    dimensions: tuple[float, ...],
    tokens: tuple[int, int],
) -> Classification:
    """Return one sound row, less the heads that the model lacks."""
    return Classification(
        labels,
        version,
        outcome if labels.outcomes else (),
        task_type if labels.task_types else (),
        dimensions if labels.dimensions else (),
        *tokens,
    )


def _within(values: Sequence[float], most: float) -> bool:
    """Whether all are numbers in 0..most, or a rounding error below; `min` and `max` overlook NaN, a sum does not."""
    return min(values) >= -0.001 and max(values) <= most and not math.isnan(sum(values))


class LabelClassifier:
    """Scores prompts with one of NVIDIA v1's models; its scores become `task_type` over the policy's labels."""

    def __init__(self, connection: TritonConnection, model: str, labels: Sequence[str]) -> None:
        self._connection = connection
        self._model = model
        self._labels = Labels(task_types=tuple(labels))

    async def labels(self) -> Labels:
        """Ask whether the model is served, and return the policy's labels: such a model does not know its own."""
        await self._connection.model_config(self._model)
        return self._labels

    async def classify(self, texts: Sequence[str]) -> Sequence[ClassifyResult]:
        """Score each text in a call of its own; Triton batches them where the model allows it."""
        return await asyncio.gather(*(self._classify_one(text) for text in texts))

    async def _classify_one(self, text: str) -> ClassifyResult:
        try:
            response = await self._connection.infer(_request(self._model, "INPUT", [text], _LABEL_OUTPUTS))
            [[scores]] = _columns(response, 1, _LABEL_OUTPUTS)
        except ClassifierError as error:
            return error
        if len(scores) != len(self._labels.task_types) or not all(map(math.isfinite, scores)):
            expected = len(self._labels.task_types)
            return ClassifierError(
                "invalid_output", f"model {self._model!r} gave {len(scores)} scores for the policy's {expected} llms."
            )
        return Classification(self._labels, Version(response.model_version), task_type=scores)


def _request(model: str, name: str, texts: Sequence[str], outputs: Iterable[str], version: str = "") -> Any:  # noqa: ANN401
    encoded = [text.encode() for text in texts]
    return pb.ModelInferRequest(
        model_name=model,
        model_version=version,
        inputs=[pb.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[len(texts), 1])],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=output) for output in outputs],
        raw_input_contents=[b"".join(struct.pack("<I", len(text)) + text for text in encoded)],
    )


def _columns(response: Any, rows: int, outputs: Mapping[str, str]) -> list[Column]:  # noqa: ANN401 - protobuf has no types
    """Return each output's values, row by row; ClassifierError when a count, shape or type does not fit."""
    if len(response.outputs) != len(response.raw_output_contents):
        raise ClassifierError("invalid_output", "The classifier's answer has outputs without contents.")
    answered = {
        output.name: (output, raw) for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    columns: list[Column] = []
    for name, datatype in outputs.items():
        if name not in answered:
            raise ClassifierError("invalid_output", f"output {name} is missing.")
        output, raw = answered[name]
        shape = list(output.shape)
        if output.datatype != datatype or len(shape) != 2 or shape[0] != rows:
            raise ClassifierError(
                "invalid_output",
                f"output {name} has shape {shape} of {output.datatype}, expected {rows} rows of {datatype}.",
            )
        if shape[1] < 1 or len(raw) != 4 * rows * shape[1]:
            raise ClassifierError("invalid_output", f"output {name} has {len(raw)} bytes for its shape.")
        columns.append(list(struct.iter_unpack(f"<{shape[1]}{_FORMATS[datatype]}", raw)))
    return columns
