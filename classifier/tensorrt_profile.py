"""The second way to serve a transformer: Triton's own ONNX Runtime backend with its TensorRT accelerator.

    TEXT -> prompt_tokenizer (python) -> prompt_encoder (onnxruntime, TensorRT) -> prompt_scores (python) -> OUTCOME ...

An ensemble with the name, tensors and spec of the one-model profile, so the router does not see a difference. Between
the steps stands Triton's scheduler: encoder batches are merged without Python in between, but a request's rows are
padded to its longest.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from classifier.errors import VersionError
from classifier.labels import INPUTS, SPEC_KEYS
from classifier.render_config import spec_line

# In the container, where deploy/docker/triton.Dockerfile has a volume. ONNX Runtime makes only the last directory.
CACHE: Final = "/var/cache/triton/tensorrt"
MAX_BATCH, OPTIMAL_BATCH = 64, 32
CONTRACT: Final = {"OUTCOME": 4, "TASK_TYPE": -1, "DIMENSIONS": 6, "COMPLEXITY": 7}
COPIED: Final = ("task_router_ensemble", "complexity_router_ensemble")  # one step each over prompt_classifier


def render(version: Path, repository: Path) -> list[Path]:
    """Write a model repository that serves `version`, a transformer's directory; returns the models' directories."""
    spec = _spec(version)
    number, model = version.name, version.parent
    widths = {name: len(spec[key]) for name, key in SPEC_KEYS.items() if spec[key] is not None}
    digest = hashlib.sha256((version / "model.onnx").read_bytes()).hexdigest()[:16]
    code = [version / "scoring.py", version / "spec.json"]
    models = {
        "prompt_tokenizer": (tokenizer_config(), [*code, version / "tokenizer.json"]),
        "prompt_encoder": (encoder_config(widths, int(spec["max_tokens"]), digest), [version / "model.onnx"]),
        "prompt_scores": (scores_config(widths), code),
        "prompt_classifier": (ensemble_config(tuple(widths), spec), []),
    }
    for name, (config, files) in models.items():
        directory = repository / name / number
        directory.mkdir(parents=True, exist_ok=True)
        (directory.parent / "config.pbtxt").write_text(config, encoding="utf-8")
        for file in files:
            shutil.copyfile(file, directory / file.name)
        step = model / "tensorrt" / f"{name}.py"
        if step.is_file():
            shutil.copyfile(step, directory / "model.py")
    for name in COPIED:
        shutil.copytree(model.parent / name, repository / name, dirs_exist_ok=True)
    return [repository / name for name in (*models, *COPIED)]


def tokenizer_config() -> str:
    """The first step's config.pbtxt: on the CPU, two instances, because the GPU waits for it."""
    outputs = {"INPUT_IDS": ("INT64", -1), "ATTENTION_MASK": ("INT64", -1), "TOKENS": ("INT32", 2)}
    return _config("prompt_tokenizer", 'backend: "python"', {"TEXT": ("STRING", 1)}, outputs, _ON_CPU.format(count=2))


def encoder_config(widths: Mapping[str, int], max_tokens: int, digest: str) -> str:
    """The encoder's config.pbtxt: fp16, one shape profile over all lengths, as ONNX Runtime only runs the first.

    The engine cache is named after the weights: an engine of other weights would be taken for theirs.
    """
    shapes = {"min": (1, 1), "opt": (OPTIMAL_BATCH, min(64, max_tokens)), "max": (MAX_BATCH, max_tokens)}
    options = {"precision_mode": "FP16", "trt_engine_cache_enable": "1", "trt_engine_cache_path": f"{CACHE}-{digest}"}
    for name, (rows, tokens) in shapes.items():
        options[f"trt_profile_{name}_shapes"] = ",".join(f"{tensor}:{rows}x{tokens}" for tensor in INPUTS)
    parameters = "\n".join(
        f'    parameters {{ key: "{key}" value: "{value}" }}' for key, value in sorted(options.items())
    )
    return _config(
        "prompt_encoder",
        'backend: "onnxruntime"',
        dict.fromkeys(INPUTS, ("INT64", -1)),
        {name: ("FP32", width) for name, width in widths.items()},
        _ON_GPU.format(parameters=parameters),
    )


def scores_config(widths: Mapping[str, int]) -> str:
    """The last step's config.pbtxt."""
    inputs = {name: ("FP32", width) for name, width in widths.items()} | {"SEEN_TOKENS": ("INT32", 2)}
    return _config("prompt_scores", 'backend: "python"', inputs, _CONTRACT_OUTPUTS, _ON_CPU.format(count=1))


def ensemble_config(heads: Sequence[str], spec: Mapping[str, Any]) -> str:
    """The ensemble's config.pbtxt, under the name that the router knows, with the spec that it reads."""
    steps = (
        _step("prompt_tokenizer", {"TEXT": "TEXT"}, {"INPUT_IDS": "ids", "ATTENTION_MASK": "mask", "TOKENS": "seen"}),
        _step("prompt_encoder", dict(zip(INPUTS, ("ids", "mask"), strict=True)), {head: head for head in heads}),
        _step(
            "prompt_scores",
            {head: head for head in heads} | {"SEEN_TOKENS": "seen"},
            {name: name for name in _CONTRACT_OUTPUTS},
        ),
    )
    scheduling = "ensemble_scheduling {\n  step [\n" + ",\n".join(steps) + "\n  ]\n}\n\n" + spec_line(spec)
    return _config("prompt_classifier", 'platform: "ensemble"', {"TEXT": ("STRING", 1)}, _CONTRACT_OUTPUTS, scheduling)


Tensors = Mapping[str, tuple[str, int]]
_CONTRACT_OUTPUTS: Tensors = {name: ("FP32", width) for name, width in CONTRACT.items()} | {"TOKENS": ("INT32", 2)}
_ON_CPU: Final = """\
instance_group [ {{ kind: KIND_CPU count: {count} }} ]
dynamic_batching {{ }}"""
_ON_GPU: Final = """\
instance_group [ {{ kind: KIND_GPU count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: 500 }}
optimization {{ execution_accelerators {{
  gpu_execution_accelerator [ {{
    name: "tensorrt"
{parameters}
  }} ]
}} }}"""


def _config(name: str, what: str, inputs: Tensors, outputs: Tensors, rest: str) -> str:
    head = f'# Written by `python -m classifier export --profile tensorrt`; do not edit.\nname: "{name}"\n{what}'
    return (
        f"{head}\nmax_batch_size: {MAX_BATCH}\n\n{_tensors('input', inputs)}\n{_tensors('output', outputs)}\n\n{rest}\n"
    )


def _tensors(field: str, tensors: Tensors) -> str:
    lines = [
        f'  {{ name: "{name}" data_type: TYPE_{kind} dims: [ {width} ] }}' for name, (kind, width) in tensors.items()
    ]
    return f"{field} [\n" + ",\n".join(lines) + "\n]"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    lines = [f'      input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items()]
    lines += [f'      output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items()]
    return f'    {{\n      model_name: "{model}"\n      model_version: -1\n' + "\n".join(lines) + "\n    }"


def _spec(version: Path) -> dict[str, Any]:
    missing = [
        name for name in ("spec.json", "model.onnx", "tokenizer.json", "scoring.py") if not (version / name).is_file()
    ]
    if missing:
        raise VersionError(f"{', '.join(missing)} missing in {version}: export a version first")
    spec: dict[str, Any] = json.loads((version / "spec.json").read_text(encoding="utf-8"))
    kind = spec.get("encoder", {}).get("kind")
    if kind != "transformer":
        raise VersionError(f"{version}: encoder.kind is {kind!r}; TensorRT is for a transformer's version")
    return spec
