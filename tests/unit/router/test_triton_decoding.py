"""What Triton's answers mean, from real protobuf messages: shapes, counts, NaN, types, labels."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as mc
from tritonclient.grpc import service_pb2 as pb

from router.decide.classification import OUTCOMES, Classification, Labels
from router.decide.triton import ClassifyResult, LabelClassifier, TritonClassifier, TritonConnection
from router.errors import ClassifierError
from router.settings import DIMENSIONS, TASK_TYPES

SPEC: dict[str, Any] = {
    "format": 1,
    "name": "a-test's",
    "outcomes": list(OUTCOMES),
    "task_types": list(TASK_TYPES),
    "dimensions": list(DIMENSIONS),
}
Output = tuple[str, Sequence[int], bytes]


def floats(rows: Sequence[Sequence[float]]) -> Output:
    return "FP32", [len(rows), len(rows[0])], b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)


def integers(rows: Sequence[Sequence[int]]) -> Output:
    return "INT32", [len(rows), len(rows[0])], b"".join(struct.pack(f"<{len(row)}i", *row) for row in rows)


def outputs(rows: int = 1) -> dict[str, Output]:
    """A sound answer for `rows` texts, each row a little different."""
    shares = [i / 100 for i in range(rows)]
    return {
        "OUTCOME": floats([(0.4 + share, 0.3 - share, 0.2, 0.1) for share in shares]),
        "TASK_TYPE": floats([[1.0] + [0.0] * 11] * rows),
        "DIMENSIONS": floats([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]] * rows),
        "TOKENS": integers([(10 + i, i) for i in range(rows)]),
    }


class FakeConnection:
    """Answers every request with the same outputs and the same specification."""

    def __init__(self, answer: Mapping[str, Output], spec: object = SPEC, version: str = "3") -> None:
        self.answer = answer
        self.spec = spec if isinstance(spec, str) else json.dumps(spec)
        self.version = version
        self.requests: list[Any] = []
        self.config_requests = 0

    async def infer(self, request: Any) -> Any:
        self.requests.append(request)
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=self.version)
        for name, (datatype, shape, raw) in self.answer.items():
            response.outputs.add(name=name, datatype=datatype, shape=shape)
            response.raw_output_contents.append(raw)
        return response

    async def model_config(self, model: str, version: str = "") -> Any:
        self.config_requests += 1
        parameters = {"spec": mc.ModelParameter(string_value=self.spec)} if self.spec else {}
        return mc.ModelConfig(name=model, parameters=parameters)


def of(connection: FakeConnection) -> TritonClassifier:
    return TritonClassifier(cast(TritonConnection, connection), "prompt_classifier")


def classify(connection: FakeConnection, *texts: str) -> Sequence[ClassifyResult]:
    return asyncio.run(of(connection).classify(texts or ("one",)))


def reason_of_failure(connection: FakeConnection, *texts: str) -> str:
    with pytest.raises(ClassifierError) as failed:
        classify(connection, *texts)
    return failed.value.reason


def test_each_text_gets_its_own_row() -> None:
    connection = FakeConnection(outputs(rows=3))
    rows = [cast(Classification, row) for row in classify(connection, "a", "b", "c")]
    assert [row.outcome[0] for row in rows] == [pytest.approx(x) for x in (0.4, 0.41, 0.42)]
    assert [(row.tokens_seen, row.tokens_dropped) for row in rows] == [(10, 0), (11, 1), (12, 2)]
    assert {row.version for row in rows} == {"3"}
    assert rows[0].labels == Labels(OUTCOMES, TASK_TYPES, DIMENSIONS)
    assert rows[0].dimensions == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5, 0.6))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_texts_are_sent_as_triton_reads_bytes(texts: list[str]) -> None:
    connection = FakeConnection(outputs(rows=len(texts)))
    classify(connection, *texts)
    [request] = connection.requests
    [tensor], [raw] = request.inputs, request.raw_input_contents
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("TEXT", "BYTES", [len(texts), 1])
    assert {output.name for output in request.outputs} == set(outputs())
    read = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        read.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    assert read == texts


def test_outputs_are_found_by_name_in_any_order_and_others_are_ignored() -> None:
    moved = dict(reversed({**outputs(), "COMPLEXITY": floats([[0.0] * 7])}.items()))
    assert classify(FakeConnection(moved)) == classify(FakeConnection(outputs()))


@pytest.mark.parametrize("name", list(outputs()))
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda d, s, raw: None, id="missing"),
        pytest.param(lambda d, s, raw: (d, [2, s[1]], raw * 2), id="a row too many"),
        pytest.param(lambda d, s, raw: (d, [2, s[1]], raw), id="a row that its bytes deny"),
        pytest.param(lambda d, s, raw: (d, [0, s[1]], b""), id="no rows"),
        pytest.param(lambda d, s, raw: (d, [s[0] * s[1]], raw), id="one dimension"),
        pytest.param(lambda d, s, raw: (d, [1, *s], raw), id="three dimensions"),
        pytest.param(lambda d, s, raw: (d, [1, 0], b""), id="no columns"),
        pytest.param(lambda d, s, raw: (d, [1, -1], raw), id="minus one column"),
        pytest.param(lambda d, s, raw: (d, s, raw[:-1]), id="a byte short"),
        pytest.param(lambda d, s, raw: (d, s, raw + b"\0" * 4), id="a value too many"),
        pytest.param(lambda d, s, raw: (d, [1, 10**12], raw), id="a shape that its bytes deny"),
        pytest.param(lambda d, s, raw: ("FP16", s, raw), id="a type that nobody reads"),
        pytest.param(lambda d, s, raw: ("INT32" if d == "FP32" else "FP32", s, raw), id="the other type"),
        pytest.param(lambda d, s, raw: ("", s, raw), id="no type"),
    ],
)
def test_what_does_not_fit_the_contract_is_invalid_output(name: str, broken: Any) -> None:
    answer: dict[str, Any] = outputs()
    answer[name] = broken(*answer[name])
    answer = {key: value for key, value in answer.items() if value is not None}
    assert reason_of_failure(FakeConnection(answer)) == "invalid_output"


def test_outputs_without_contents_are_invalid_output() -> None:
    class WithoutContents(FakeConnection):
        async def infer(self, request: Any) -> Any:
            response = await super().infer(request)
            response.raw_output_contents.pop()
            return response

    assert reason_of_failure(WithoutContents(outputs())) == "invalid_output"


SOUND = [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("OUTCOME", floats([[math.nan, 0.3, 0.2, 0.1], SOUND])),
        ("OUTCOME", floats([[math.inf, 0.3, 0.2, 0.1], SOUND])),
        ("OUTCOME", floats([[0.9, 0.3, 0.2, 0.1], SOUND])),
        ("OUTCOME", floats([[0.0, 0.0, 0.0, 0.0], SOUND])),
        ("OUTCOME", floats([[1.4, -0.4, 0.0, 0.0], SOUND])),
        ("TASK_TYPE", floats([[math.nan] * 12, [0.0] * 12])),
        ("TASK_TYPE", floats([[7.0] + [0.0] * 11, [0.0] * 12])),
        ("TASK_TYPE", floats([[0.0] * 11 + [math.nan], [0.0] * 12])),
        ("DIMENSIONS", floats([[math.nan] * 6, [0.5] * 6])),
        ("DIMENSIONS", floats([[-1.0] * 6, [0.5] * 6])),
        ("DIMENSIONS", floats([[5.5] * 6, [0.5] * 5 + [4.9]])),
    ],
)
def test_a_row_that_is_no_probability_fails_alone(name: str, row: Output) -> None:
    bad, good = classify(FakeConnection({**outputs(rows=2), name: row}), "bad", "good")
    assert isinstance(bad, ClassifierError)
    assert bad.reason == "invalid_output"
    assert isinstance(good, Classification)


@pytest.mark.parametrize("name", ["OUTCOME", "TASK_TYPE", "DIMENSIONS", "TOKENS"])
def test_more_columns_than_labels_are_invalid_output(name: str) -> None:
    wide = integers([[1, 2, 3]]) if name == "TOKENS" else floats([[1.0] + [0.0] * 12])
    narrow = integers([[1]]) if name == "TOKENS" else floats([[1.0]])
    for output in (wide, narrow):
        [result] = classify(FakeConnection({**outputs(), name: output}))
        assert isinstance(result, ClassifierError)
        assert result.reason == "invalid_output"


@pytest.mark.parametrize(
    ("absent", "output"), [("outcomes", "OUTCOME"), ("task_types", "TASK_TYPE"), ("dimensions", "DIMENSIONS")]
)
def test_a_head_declared_absent_may_answer_nan_and_is_ignored(absent: str, output: str) -> None:
    width = outputs()[output][1][1]
    connection = FakeConnection({**outputs(), output: floats([[math.nan] * width])}, {**SPEC, absent: None})
    [row] = classify(connection)
    assert isinstance(row, Classification)
    assert getattr(row.labels, absent) == ()
    assert {"outcomes": row.outcome, "task_types": row.task_type, "dimensions": row.dimensions}[absent] == ()


def test_labels_are_asked_for_once_a_version() -> None:
    async def main() -> None:
        connection = FakeConnection(outputs())
        classifier = of(connection)
        for version, asked in (("1", 1), ("1", 1), ("2", 2), ("1", 2)):
            connection.version = version
            [row] = await classifier.classify(["a"])
            assert cast(Classification, row).version == version
            assert connection.config_requests == asked

    asyncio.run(main())


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "not JSON",
        "[]",
        "null",
        "{}",
        {**SPEC, "outcomes": ["weak", "strong"]},
        {**SPEC, "outcomes": [*OUTCOMES, "both"]},
        {**SPEC, "outcomes": 5},
        {**SPEC, "task_types": "Chatbot"},
        {**SPEC, "task_types": ["billing", "card\nlost"]},
        {**SPEC, "task_types": ["billing", ""]},
        {**SPEC, "dimensions": [1, 2]},
        {**SPEC, "dimensions": {"creativity": 1}},
        {key: value for key, value in SPEC.items() if key != "dimensions"},
    ],
    ids=str,
)
def test_a_specification_that_cannot_be_read_is_a_broken_contract(spec: object) -> None:
    with pytest.raises(ClassifierError, match="'prompt_classifier'") as failed:
        asyncio.run(of(FakeConnection(outputs(), spec)).labels())
    assert failed.value.reason == "contract"


def nvidia(answer: Mapping[str, Output], *labels: str) -> tuple[FakeConnection, LabelClassifier]:
    connection = FakeConnection(answer, spec="", version="1")
    return connection, LabelClassifier(cast(TritonConnection, connection), "task_router_ensemble", labels)


def test_nvidia_s_models_are_asked_one_prompt_a_call() -> None:
    connection, classifier = nvidia({"OUTPUT": floats([[0.0, 1.0, 0.0]])}, "a", "b", "c")
    rows = [cast(Classification, row) for row in asyncio.run(classifier.classify(["x", "y"]))]
    assert [row.task for row in rows] == [(1, 1.0)] * 2
    assert rows[0].labels == Labels(task_types=("a", "b", "c")) == asyncio.run(classifier.labels())
    assert [(list(r.inputs[0].shape), r.inputs[0].name, r.outputs[0].name) for r in connection.requests] == [
        ([1, 1], "INPUT", "OUTPUT")
    ] * 2


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"OUTPUT": floats([[0.0, 1.0]])},
        {"OUTPUT": floats([[0.0, math.nan, 1.0]])},
        {"OUTPUT": floats([[0.0, 1.0, 0.0]] * 2)},
        {"OUTPUT": integers([[0, 1, 0]])},
        {"WRONG": floats([[0.0, 1.0, 0.0]])},
    ],
    ids=str,
)
def test_nvidia_s_models_must_answer_one_finite_score_per_llm(answer: dict[str, Output]) -> None:
    _, classifier = nvidia(answer, "a", "b", "c")
    [result] = asyncio.run(classifier.classify(["x"]))
    assert isinstance(result, ClassifierError)
    assert result.reason == "invalid_output"


def test_one_of_nvidia_s_calls_failing_fails_its_prompt_alone() -> None:
    connection, classifier = nvidia({"OUTPUT": floats([[1.0]])}, "a")
    sound = connection.infer

    async def infer(request: Any) -> Any:
        if request.raw_input_contents[0].endswith(b"poison"):
            raise ClassifierError("unhealthy", "exception in the model")
        return await sound(request)

    connection.infer = infer  # type: ignore[method-assign] # a fault in one call of three
    results = asyncio.run(classifier.classify(["x", "poison", "y"]))
    assert [isinstance(result, Classification) for result in results] == [True, False, True]
