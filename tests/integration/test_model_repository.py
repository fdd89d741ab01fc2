"""The contract of the model repository, asked of the real Triton over gRPC."""

import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from loadtest.local_triton import CACHE_VARIABLE, MODELS, LocalTriton, LocalTritonError
from loadtest.scrape import Page
from loadtest.stack import CLASSIFIERS
from tests.tiny_classifier import POISON, expected_probabilities, load_scoring, write_tiny_repository
from tests.triton_client import CLASSIFIER, OUTPUTS, classify, connect, counted, text_input, wait_until

scoring = load_scoring()
TEXTS = [
    "Hi",
    "Prove that the square root of 2 is irrational.",
    "Summarize the following letter in two sentences: " + "The harbour was quiet. " * 30,
    "日本の首都はどこですか。",
    "🎉 👩‍👩‍👧‍👦 ☀️",
    "tab\tnewline\nnul\x00end",
]


@pytest.fixture(scope="module", params=CLASSIFIERS.values())
def triton(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    """Each committed version, as its configuration serves it on a CPU."""
    with LocalTriton.start(tmp_path_factory.mktemp("triton"), config=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def tiny_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    """A second Triton, with known answers, that waits long enough to merge concurrent requests for certain."""
    directory = tmp_path_factory.mktemp("tiny")
    models = write_tiny_repository(directory / "models", max_tokens=64)
    config = models / CLASSIFIER / "configs" / "cpu.pbtxt"
    text = config.read_text()
    assert "max_queue_delay_microseconds: 500 " in text
    config.write_text(text.replace("max_queue_delay_microseconds: 500 ", "max_queue_delay_microseconds: 300000 "))
    with LocalTriton.start(directory / "run", models=models) as running:
        yield running


def served_version(triton: LocalTriton) -> Path:
    with connect(triton) as client:
        return MODELS / CLASSIFIER / str(client.get_model_metadata(CLASSIFIER).versions[-1])


def served_spec(triton: LocalTriton) -> Any:
    with connect(triton) as client:
        config = client.get_model_config(CLASSIFIER).config
    return json.loads(config.parameters["spec"].string_value)


def moved_by_int8(triton: LocalTriton) -> float:
    """How far a probability of a transformer on a CPU may be from that of its fp16 weights; 0 for a static encoder."""
    return 0.1 if served_spec(triton)["encoder"]["kind"] == "transformer" else 0.0


def test_names_types_and_shapes(triton: LocalTriton) -> None:
    with connect(triton) as client:
        metadata = client.get_model_metadata(CLASSIFIER, as_json=True)
        config = client.get_model_config(CLASSIFIER).config
    tensors = {
        tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"] + metadata["outputs"]
    }
    assert tensors == {
        "TEXT": ("BYTES", ["-1", "1"]),
        "OUTCOME": ("FP32", ["-1", "4"]),
        "TASK_TYPE": ("FP32", ["-1", "-1"]),
        "DIMENSIONS": ("FP32", ["-1", "6"]),
        "COMPLEXITY": ("FP32", ["-1", "7"]),
        "TOKENS": ("INT32", ["-1", "2"]),
    }
    assert config.max_batch_size == 64
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")


def test_the_spec_can_be_read_from_the_served_config(triton: LocalTriton) -> None:
    spec = served_spec(triton)
    assert spec == json.loads((served_version(triton) / "spec.json").read_text())
    assert set(spec) == {
        *("format", "name", "outcomes", "task_types", "dimensions", "encoder"),
        *("max_tokens", "calibration", "training_data", "training", "metrics"),
    }


def test_configs_differ_in_the_kind_of_instance_and_the_version_only() -> None:
    def settings(path: Path) -> list[str]:
        own = ("#", "version_policy ", 'parameters { key: "spec"')
        return [line for line in path.read_text().splitlines() if not line.startswith(own)]

    gpu = settings(MODELS / CLASSIFIER / "config.pbtxt")
    assert sum("KIND_GPU" in line for line in gpu) == 1
    for config in (MODELS / CLASSIFIER / "configs").glob("*.pbtxt"):
        assert [line.replace("KIND_GPU", "KIND_CPU") for line in gpu] == settings(config), config


def test_heads_are_probabilities_or_declared_absent(triton: LocalTriton) -> None:
    spec, scores = served_spec(triton), classify(triton, TEXTS)
    for head, output in (("outcomes", "OUTCOME"), ("task_types", "TASK_TYPE")):
        assert spec[head] is not None
        np.testing.assert_allclose(scores[output].sum(axis=1), 1, atol=1e-5)
        assert (scores[output] >= 0).all()
    if spec["dimensions"] is None:
        assert np.isnan(scores["DIMENSIONS"]).all()
        assert (scores["COMPLEXITY"].argmax(axis=1) == scoring.COMPLEXITY.index("No-Label-Reason")).all()
    else:
        assert ((scores["DIMENSIONS"] >= 0) & (scores["DIMENSIONS"] <= 1)).all()


def test_a_batch_is_answered_as_its_rows_alone(triton: LocalTriton) -> None:
    together = classify(triton, TEXTS)
    allowed = moved_by_int8(triton) or 1e-5  # int8 has one scale for a batch's activations: a row's mates move it
    for row, text in enumerate(TEXTS):
        alone = classify(triton, [text])
        for output in OUTPUTS:
            np.testing.assert_allclose(together[output][row], alone[output][0], atol=allowed)


def test_triton_and_offline_scoring_agree(triton: LocalTriton) -> None:
    served, offline = classify(triton, TEXTS), scoring.Scorer.load(served_version(triton)).score(TEXTS)
    allowed = moved_by_int8(triton) or 1e-6  # offline the weights run as they are
    np.testing.assert_allclose(served["OUTCOME"], offline.outcome, atol=allowed)
    np.testing.assert_array_equal(served["TOKENS"], offline.tokens)


def test_empty_text_is_answered(triton: LocalTriton) -> None:
    scores = classify(triton, [""])
    assert np.isfinite(scores["OUTCOME"]).all()
    assert np.isfinite(scores["TASK_TYPE"]).all()


def test_a_text_of_megabytes_is_truncated_and_counted(triton: LocalTriton) -> None:
    before = counted(triton, "prompt_classifier_rows_truncated_total")
    scores = classify(triton, ["word " * 400_000, "short"])
    (seen, dropped), (_, kept_whole) = scores["TOKENS"].tolist()
    assert seen == served_spec(triton)["max_tokens"]
    assert seen + dropped == pytest.approx(400_000, rel=0.05)
    assert kept_whole == 0
    wait_until(lambda: counted(triton, "prompt_classifier_rows_truncated_total") == before + 1)


def test_rows_tokens_and_padding_are_counted(triton: LocalTriton) -> None:
    names = [f"prompt_classifier_{name}_total" for name in ("rows", "tokens", "padded_tokens")]
    before = [counted(triton, name) for name in names]
    tokens = classify(triton, ["one two", "one two three four"])["TOKENS"][:, 0].tolist()
    wait_until(lambda: counted(triton, names[0]) == before[0] + 2)
    assert counted(triton, names[1]) == before[1] + sum(tokens)
    assert counted(triton, names[2]) == before[2] + max(tokens) - min(tokens)


@pytest.mark.parametrize(
    ("ensemble", "output"),
    [("task_router_ensemble", "TASK_TYPE"), ("complexity_router_ensemble", "COMPLEXITY")],
)
def test_ensembles_answer_each_row(triton: LocalTriton, ensemble: str, output: str) -> None:
    with connect(triton) as client:
        answer = client.infer(ensemble, [text_input(TEXTS, "INPUT")]).as_numpy("OUTPUT")
    np.testing.assert_allclose(answer, classify(triton, TEXTS)[output], atol=1e-5)


def test_known_numbers_come_through_a_second_triton(triton: LocalTriton, tiny_triton: LocalTriton) -> None:
    assert served_spec(triton)["name"] != served_spec(tiny_triton)["name"]
    texts = ["easy poem .", "why hard code", "hard " * 40]
    scores = classify(tiny_triton, texts)
    for row, text in enumerate(texts):
        outcome, task, dimensions = expected_probabilities(text.split())
        np.testing.assert_allclose(scores["OUTCOME"][row], outcome, atol=1e-5)
        np.testing.assert_allclose(scores["TASK_TYPE"][row], task, atol=1e-5)
        np.testing.assert_allclose(scores["DIMENSIONS"][row], dimensions, atol=1e-5)


def executions_of(triton: LocalTriton, rows: int) -> int:
    """Return how often the model ran with so many rows in one batch."""
    with connect(triton) as client:
        statistics = client.get_inference_statistics(CLASSIFIER).model_stats[0]
    return sum(batch.compute_infer.count for batch in statistics.batch_stats if batch.batch_size == rows)


@pytest.mark.parametrize(
    ("request_with_bad_row", "message"),
    [
        ([b"easy", b"ab\xff\xfe"], "TEXT row 1 is not UTF-8: byte 2 is invalid"),
        ([POISON.encode()] * 3, "none of the rows could be scored"),
    ],
    ids=["invalid UTF-8", "poison"],
)
def test_a_bad_row_fails_its_own_request_only(
    tiny_triton: LocalTriton, request_with_bad_row: list[bytes], message: str
) -> None:
    failures = counted(tiny_triton, "prompt_classifier_requests_failed_total")
    with ThreadPoolExecutor(3) as pool:
        mates = [pool.submit(classify, tiny_triton, ["easy", "hard"]) for _ in range(2)]
        failing = pool.submit(classify, tiny_triton, request_with_bad_row)
    with pytest.raises(InferenceServerException, match=message) as caught:
        failing.result()
    assert "Traceback" not in str(caught.value)
    assert POISON not in str(caught.value)
    expected = [expected_probabilities([word])[0] for word in ("easy", "hard")]
    for mate in mates:
        np.testing.assert_allclose(mate.result()["OUTCOME"], expected, atol=1e-5)
    assert counted(tiny_triton, "prompt_classifier_requests_failed_total") == failures + 1
    wait_until(lambda: executions_of(tiny_triton, rows=4 + len(request_with_bad_row)) == 1)


def test_a_row_that_cannot_be_scored_is_nan_and_its_mates_are_scored(tiny_triton: LocalTriton) -> None:
    scores = classify(tiny_triton, ["easy", POISON, "hard"])
    for name in ("OUTCOME", "TASK_TYPE", "DIMENSIONS", "COMPLEXITY"):
        assert np.isnan(scores[name]).all(axis=1).tolist() == [False, True, False]
    assert scores["TOKENS"][1].tolist() == [0, 0]
    np.testing.assert_allclose(scores["OUTCOME"][2], expected_probabilities(["hard"])[0], atol=1e-5)


def test_concurrent_requests_keep_their_own_answers(tiny_triton: LocalTriton) -> None:
    words = ["easy", "hard", "code", "poem", "what", "why"] * 5
    with ThreadPoolExecutor(len(words)) as pool:
        answers = list(pool.map(lambda word: classify(tiny_triton, [word])["OUTCOME"][0], words))
    for word, answer in zip(words, answers, strict=True):
        np.testing.assert_allclose(answer, expected_probabilities([word])[0], atol=1e-5)


def test_malformed_tensors_are_refused_and_the_model_lives(tiny_triton: LocalTriton) -> None:
    wide = grpc_client.InferInput("TEXT", [1, 2], "BYTES")
    wide.set_data_from_numpy(np.array([[b"easy", b"hard"]], dtype=object))
    numbers = grpc_client.InferInput("TEXT", [1, 1], "FP32")
    numbers.set_data_from_numpy(np.zeros((1, 1), np.float32))
    lying = text_input(["easy"])
    lying._raw_content = struct.pack("<I", 1_000_000) + b"easy"
    too_many = text_input(["easy"] * 65)
    with connect(tiny_triton) as client:
        for tensor in (wide, numbers, lying, too_many):
            with pytest.raises(InferenceServerException):
                client.infer(CLASSIFIER, [tensor], client_timeout=20)
    assert np.isfinite(classify(tiny_triton, ["easy"])["OUTCOME"]).all()


def test_a_dead_stub_shows_in_inference_and_a_reload_heals_it(tmp_path: Path) -> None:
    models = write_tiny_repository(tmp_path / "models")
    with LocalTriton.start(tmp_path / "run", models=models) as triton, connect(triton) as client:
        stubs = [p for p in psutil.Process(triton.pid).children(recursive=True) if "stub" in p.name()]
        assert len(stubs) == 1
        stubs[0].kill()
        with pytest.raises(InferenceServerException):
            classify(triton, ["easy"])
        assert triton.poll() is None
        client.unload_model(CLASSIFIER)
        wait_until(lambda: not client.is_model_ready(CLASSIFIER))
        client.load_model(CLASSIFIER)
        assert np.isfinite(classify(triton, ["easy"])["OUTCOME"]).all()


def test_a_transformer_runs_as_int8_and_the_log_says_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    models = write_tiny_repository(tmp_path / "models", encoder="transformer")
    with LocalTriton.start(tmp_path / "run", models=models) as triton:
        scores = classify(triton, ["easy poem .", "why hard code"])
        log = triton.log_path.read_text()
        assert Page.get(triton.metrics_url).total("prompt_classifier_nodes", provider="CPUExecutionProvider") > 5
    for row, text in enumerate(["easy poem .", "why hard code"]):
        np.testing.assert_allclose(scores["OUTCOME"][row], expected_probabilities(text.split())[0], atol=0.02)
    assert "model.int8.onnx runs on CPUExecutionProvider" in log
    assert [path.name for path in (tmp_path / "cache").glob("*/*.onnx")] == ["model.int8.onnx"]
    # The repository itself is as it was: it may be mounted read-only.
    assert not list((tmp_path / "run").glob("models/**/*.int8.onnx"))


def test_a_gpu_instance_on_a_machine_without_one_does_not_start(tmp_path: Path) -> None:
    models = write_tiny_repository(tmp_path / "models")
    config = models / CLASSIFIER / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("KIND_CPU", "KIND_GPU"))
    with pytest.raises(LocalTritonError, match="GPU"):
        LocalTriton.start(tmp_path / "run", models=models)


def test_an_unknown_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalTritonError, match=r"has a configs/tpu\.pbtxt"):
        LocalTriton.start(tmp_path / "run", config="tpu")
