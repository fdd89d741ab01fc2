"""Where a version runs: decisions for machines that this one is not, and what really happens on this CPU."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_classifier import expected_probabilities, load_runtime, load_scoring, write_tiny_version

runtime = load_runtime()
scoring = load_scoring()
CPU, CUDA, TENSORRT = runtime.CPU, runtime.CUDA, runtime.TENSORRT
GPU_BUILD = [TENSORRT, CUDA, CPU]  # what onnxruntime-gpu says of itself
TENSORRT_PLAN = runtime.Plan(TENSORRT)


@pytest.mark.parametrize(
    ("kind", "available", "encoder", "plan"),
    [
        ("GPU", GPU_BUILD, "transformer", runtime.Plan(TENSORRT)),
        ("GPU", [CUDA, CPU], "transformer", runtime.Plan(CUDA)),
        ("GPU", GPU_BUILD, "static", runtime.Plan(CUDA)),
        ("CPU", GPU_BUILD, "static", runtime.Plan(CPU)),
        ("CPU", [CPU], "transformer", runtime.Plan(CPU, int8=True)),
    ],
)
def test_the_plan(kind: str, available: list[str], encoder: str, plan: Any) -> None:
    assert runtime.make_plan(kind, available, encoder) == plan


def test_a_gpu_instance_without_cuda_is_refused() -> None:
    with pytest.raises(
        runtime.VersionError, match=r"KIND_GPU, but ONNX Runtime was built for CPUExecution.*--model-con"
    ):
        runtime.make_plan("GPU", [CPU], "transformer")


@given(st.integers(8, 8192))
def test_tensorrt_sessions_take_every_length_once(max_tokens: int) -> None:
    widths = runtime.session_widths(TENSORRT_PLAN, max_tokens)
    assert [length for first, last in widths for length in range(first, last + 1)] == list(range(1, max_tokens + 1))
    assert runtime.session_widths(runtime.Plan(CUDA), max_tokens) == [(1, max_tokens)]


def test_tensorrt_comes_first_with_the_shapes_of_its_bucket(tmp_path: Path) -> None:
    (first, options), second, third = runtime.providers_of(TENSORRT_PLAN, "1", (33, 64), tmp_path)
    assert (first, second, third) == (TENSORRT, (CUDA, {"device_id": "1"}), CPU)
    folder = str(tmp_path / "tensorrt-64-tokens")
    assert options == {
        "device_id": "1",
        "trt_fp16_enable": "True",
        "trt_profile_min_shapes": "input_ids:1x33,attention_mask:1x33",
        "trt_profile_opt_shapes": "input_ids:32x64,attention_mask:32x64",
        "trt_profile_max_shapes": "input_ids:64x64,attention_mask:64x64",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": folder,
    }


def test_without_a_cache_tensorrt_still_runs() -> None:
    (_, options), *_ = runtime.providers_of(TENSORRT_PLAN, "0", (1, 16), None)
    assert not [name for name in options if "cache" in name]


def test_every_batch_that_scoring_makes_fits_a_profile() -> None:
    lengths = np.arange(1, 513, dtype=np.int32).repeat(3)
    profiles = runtime.session_widths(TENSORRT_PLAN, 512)
    for rows in scoring.length_buckets(lengths):
        longest = lengths[rows].max()
        first, last = next((first, last) for first, last in profiles if longest <= last)
        assert first <= longest <= last
        assert len(rows) <= runtime.ROWS_PER_RUN


def test_work_on_the_cpu_of_a_gpu_instance_is_refused() -> None:
    everything = {CPU: Counter(MatMul=36, Add=12, Shape=1)}
    for plan in (TENSORRT_PLAN, runtime.Plan(CUDA)):
        with pytest.raises(runtime.VersionError, match="would run MatMul on the CPU: its CUDA libraries"):
            runtime.check_running(plan, everything)
    runtime.check_running(runtime.Plan(CPU), everything)


def test_shapes_may_stay_on_the_cpu() -> None:
    runtime.check_running(runtime.Plan(CUDA), {CUDA: Counter(MatMul=36), CPU: Counter(Shape=1, Slice=2)})


def test_the_line_for_the_log_tells_what_was_wanted_in_vain() -> None:
    assigned = {CUDA: Counter(MatMul=36, Add=12), CPU: Counter(Shape=1)}
    line = runtime.describe(TENSORRT_PLAN, "model.onnx", assigned)
    assert line == (
        "model.onnx runs on CUDAExecutionProvider 48 nodes, CPUExecutionProvider 1 nodes; "
        "TensorrtExecutionProvider was wanted but could not be loaded"
    )
    assert "in vain" not in runtime.describe(runtime.Plan(CUDA), "model.onnx", assigned)


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "cache"))
    write_tiny_version(tmp_path / "version", encoder="transformer")
    return tmp_path / "version"


def opened(version: Path) -> tuple[Any, list[str]]:
    lines: list[str] = []
    return runtime.open_sessions(version, "CPU", "0", lines.append), lines


def scored(version: Path, running: Any) -> Any:
    return scoring.Scorer.load(version, sessions=running.sessions).score(["easy poem .", "why hard code"])


def test_a_transformer_on_a_cpu_runs_int8_that_says_almost_the_same(version: Path) -> None:
    running, lines = opened(version)
    assert lines == []
    assert running.description.startswith("model.int8.onnx runs on CPUExecutionProvider ")
    scores = scored(version, running)
    for row, text in enumerate(["easy poem .", "why hard code"]):
        np.testing.assert_allclose(scores.outcome[row], expected_probabilities(text.split())[0], atol=0.02)
    assert "MatMulInteger" in (operators := runtime.assignment(running.sessions[0][1])[CPU])
    assert "MatMul" not in operators


def test_int8_is_derived_once_also_when_instances_start_together(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[Path] = []

    def counting(source: Path, target: Path) -> None:
        derived.append(target)
        real(source, target)

    real = runtime.derive
    monkeypatch.setattr(runtime, "derive", counting)
    with ThreadPoolExecutor(3) as pool:
        assert len(list(pool.map(opened, [version] * 3))) == 3
    assert len(derived) == 1


def test_other_weights_get_another_int8_file(version: Path, tmp_path: Path) -> None:
    opened(version)
    write_tiny_version(version, encoder="transformer", heads=("outcomes", "task_types"))
    opened(version)
    assert len(list((tmp_path / "cache").glob("*/model.int8.onnx"))) == 2


def test_without_a_writable_cache_the_weights_run_as_they_are(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    running, [line] = opened(version)
    assert running.description.startswith("model.onnx runs on")
    assert line.startswith("no cache")
    assert "set PROMPT_CLASSIFIER_CACHE to a writable directory" in line
    np.testing.assert_allclose(
        scored(version, running).outcome[1], expected_probabilities(["why", "hard", "code"])[0], atol=1e-5
    )


def test_without_onnx_the_weights_run_as_they_are(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    running, [line] = opened(version)
    assert running.description.startswith("model.onnx runs on")
    assert "less than half the speed of int8" in line


def test_a_static_encoder_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "cache"))
    write_tiny_version(tmp_path / "version")
    running, lines = opened(tmp_path / "version")
    assert running.description.startswith("model.onnx runs on CPUExecutionProvider")
    assert lines == []
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_the_configured_directory_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert runtime.cache_directory({}) == Path("/home/somebody/.cache/prompt_classifier")
    assert runtime.cache_directory({runtime.CACHE_VARIABLE: "/var/cache/x"}) == Path("/var/cache/x")


def test_a_gpu_instance_on_this_machine_is_refused(version: Path) -> None:
    if CUDA in runtime.onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime was built for CUDA")
    with pytest.raises(runtime.VersionError, match="install onnxruntime-gpu"):
        runtime.open_sessions(version, "GPU", "0", print)
