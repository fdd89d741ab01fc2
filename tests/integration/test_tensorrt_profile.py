"""The TensorRT profile as a whole repository: read by Triton's own protobuf, served by the real Triton."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from loadtest.local_triton import LocalTriton
from loadtest.stack import REPOSITORY
from tests.tiny_classifier import expected_probabilities, load_scoring, write_tiny_repository
from tests.triton_client import CLASSIFIER, classify, connect, text_input

scoring = load_scoring()
STAND_IN = REPOSITORY / "tests" / "onnxruntime_stand_in.py"
TEXTS = ["easy poem .", "why hard code", "hard " * 40, "", "what"]


def exported(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "classifier", "export", "--profile", "tensorrt", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


def rendered(tmp_path: Path, heads: tuple[str, ...] = ("outcomes", "task_types", "dimensions")) -> tuple[Path, Path]:
    """Return the version, of a tiny transformer, and the repository that serves it."""
    models = write_tiny_repository(tmp_path / "models", encoder="transformer", heads=heads)
    version = models / CLASSIFIER / "1"
    done = exported("--version", str(version), "--out", str(tmp_path / "repository"))
    assert done.returncode == 0, done.stderr
    return version, tmp_path / "repository"


def config(repository: Path, model: str):
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_the_encoder_runs_fp16_on_tensorrt_with_a_cache_of_its_weights(tmp_path: Path) -> None:
    version, repository = rendered(tmp_path)
    encoder = config(repository, "prompt_encoder")
    assert encoder.backend == "onnxruntime"
    [accelerator] = encoder.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    options = dict(accelerator.parameters)
    assert options["precision_mode"] == "FP16"
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert options["trt_profile_max_shapes"] == "input_ids:64x512,attention_mask:64x512"
    other = tmp_path / "other"
    (version / "model.onnx").write_bytes((version / "model.onnx").read_bytes() + b"\x92\x01\x00")
    assert exported("--version", str(version), "--out", str(other)).returncode == 0
    [changed] = config(other, "prompt_encoder").optimization.execution_accelerators.gpu_execution_accelerator
    assert changed.parameters["trt_engine_cache_path"] != options["trt_engine_cache_path"]


def test_the_ensemble_has_the_contract_of_the_one_model(tmp_path: Path) -> None:
    version, repository = rendered(tmp_path)
    one = text_format.Parse((version.parent / "configs" / "cpu.pbtxt").read_text(), model_config_pb2.ModelConfig())
    ensemble = config(repository, CLASSIFIER)
    assert (ensemble.name, ensemble.max_batch_size) == (one.name, one.max_batch_size)
    assert (list(ensemble.input), list(ensemble.output)) == (list(one.input), list(one.output))
    assert ensemble.parameters["spec"] == one.parameters["spec"]


@pytest.mark.parametrize("heads", [("outcomes", "task_types", "dimensions"), ("outcomes", "task_types")])
def test_triton_answers_as_the_version_itself(tmp_path: Path, heads: tuple[str, ...]) -> None:
    version, repository = rendered(tmp_path, heads)
    stand_in_for_the_onnxruntime_backend(repository)
    with LocalTriton.start(tmp_path / "run", models=repository) as triton:
        served = classify(triton, TEXTS)
        with connect(triton) as client:
            tasks = client.infer("task_router_ensemble", [text_input(TEXTS, "INPUT")]).as_numpy("OUTPUT")
            spec = client.get_model_config(CLASSIFIER).config.parameters["spec"].string_value
    own = scoring.Scorer.load(version).score(TEXTS)
    np.testing.assert_allclose(served["OUTCOME"], own.outcome, atol=1e-5)
    np.testing.assert_allclose(served["DIMENSIONS"], own.dimensions, atol=1e-5)
    np.testing.assert_allclose(served["COMPLEXITY"], own.complexity, atol=1e-5)
    np.testing.assert_array_equal(served["TOKENS"], own.tokens)
    np.testing.assert_allclose(tasks, own.task_type, atol=1e-5)
    np.testing.assert_allclose(served["OUTCOME"][1], expected_probabilities(["why", "hard", "code"])[0], atol=1e-5)
    assert json.loads(spec) == json.loads((version / "spec.json").read_text())


def stand_in_for_the_onnxruntime_backend(repository: Path) -> None:
    encoder = config(repository, "prompt_encoder")
    encoder.backend = "python"
    encoder.ClearField("optimization")
    encoder.instance_group[0].kind = model_config_pb2.ModelInstanceGroup.KIND_CPU
    directory = repository / "prompt_encoder"
    (directory / "configs").mkdir()
    (directory / "configs" / "cpu.pbtxt").write_text(text_format.MessageToString(encoder))
    shutil.copyfile(STAND_IN, directory / "1" / "model.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--version", "triton_models/prompt_classifier/1", "--out", "x"], "encoder.kind is 'static'; TensorRT is for"),
        (
            ["--version", "nowhere", "--out", "x"],
            "spec.json, model.onnx, tokenizer.json, scoring.py missing in nowhere",
        ),
        ([], "--profile tensorrt needs --version"),
    ],
)
def test_what_cannot_be_rendered_is_named(arguments: list[str], message: str) -> None:
    done = exported(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (REPOSITORY / "x").exists()
