"""A classifier small enough to check by hand: each word carries its own logits, a text scores their mean.

It is a real version directory (ONNX, tokenizer, spec) for the real scoring code and the real Triton.
The word "poison" has an id beyond the table, so scoring any text with it raises inside ONNX Runtime.
"""

import importlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers

TRITON_MODELS = Path(__file__).parents[1] / "triton_models"
SCORING = TRITON_MODELS / "prompt_classifier" / "1" / "scoring.py"
WORDS = ("[UNK]", "easy", "hard", "code", "poem", "what", "why", ".")
POISON = "poison"
WIDTHS = {"outcomes": 4, "task_types": 12, "dimensions": 6}
TEMPERATURE, BIAS = 2.0, (0.5, 0.0, -0.25, 0.0)


def load_scoring(path: Path = SCORING) -> ModuleType:
    """Load a version's scoring code by its path, as every user of a version does."""
    spec = importlib.util.spec_from_file_location("scoring_of_version", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load_runtime() -> ModuleType:
    """Load runtime.py, which imports the files beside it by their names, as in Triton's stub."""
    if str(SCORING.parent) not in sys.path:
        sys.path.insert(0, str(SCORING.parent))
    return importlib.import_module("runtime")


def word_logits() -> npt.NDArray[Any]:
    """Return the table [words, 22]: outcome, task and dimension logits of each word, exact in fp16."""
    table = np.random.default_rng(7).integers(-8, 9, size=(len(WORDS), sum(WIDTHS.values())))
    return (table / 4).astype(np.float16)


def tiny_spec(heads: Sequence[str] = tuple(WIDTHS), max_tokens: int = 512, encoder: str = "static") -> dict[str, Any]:
    labels = load_scoring().LABELS
    return {
        "format": 1,
        "name": "tiny-test-classifier",
        **{head: list(labels[head]) if head in heads else None for head in WIDTHS},
        "encoder": {"kind": encoder, "source": "hand-made"},
        "max_tokens": max_tokens,
        "calibration": {"temperature": TEMPERATURE, "bias": list(BIAS)},
        "training_data": {"sha256": None, "rows": 0},
        "metrics": {},
    }


def tiny_onnx(heads: Sequence[str] = tuple(WIDTHS), encoder: str = "static") -> onnx.ModelProto:
    """Return the mean of the words' logits; a "transformer" multiplies it by an identity, so it has a matrix."""

    def constant(name: str, values: npt.NDArray[Any]) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Cast", ["table16"], ["table"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["vectors", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "tokens"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["mean"]),
        helper.make_node("Cast", ["identity16"], ["identity"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["mean", "identity"], ["product"]),
        helper.make_node(
            "Split",
            ["mean" if encoder == "static" else "product", "widths"],
            ["outcome_logits", "task_logits", "raw"],
            axis=1,
        ),
        helper.make_node("Sigmoid", ["raw"], ["dimensions"]),
    ]
    names = {"outcomes": "outcome_logits", "task_types": "task_logits", "dimensions": "dimensions"}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info(names[head], TensorProto.FLOAT, ["batch", WIDTHS[head]]) for head in heads],
        [
            constant("table16", word_logits()),
            constant("identity16", np.eye(sum(WIDTHS.values()), dtype=np.float16)),
            constant("last", np.array([-1], np.int64)),
            constant("tokens", np.array([1], np.int64)),
            constant("one", np.array([1], np.float32)),
            constant("widths", np.array(list(WIDTHS.values()), np.int64)),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def tiny_tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate((*WORDS, POISON))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def write_tiny_version(
    version_dir: Path, *, heads: Sequence[str] = tuple(WIDTHS), max_tokens: int = 512, encoder: str = "static"
) -> dict[str, Any]:
    """Write model.onnx, tokenizer.json and spec.json; return the spec."""
    version_dir.mkdir(parents=True, exist_ok=True)
    spec = tiny_spec(heads, max_tokens, encoder)
    onnx.save(tiny_onnx(heads, encoder), version_dir / "model.onnx")
    tiny_tokenizer().save(str(version_dir / "tokenizer.json"))
    (version_dir / "spec.json").write_text(json.dumps(spec))
    return spec


def write_tiny_repository(
    directory: Path, *, heads: Sequence[str] = tuple(WIDTHS), max_tokens: int = 512, encoder: str = "static"
) -> Path:
    """Copy the model repository with the tiny classifier as its only version."""
    others = ("2", "cpu-minilm.pbtxt")
    left_out = shutil.ignore_patterns("model.onnx", "tokenizer.json", "spec.json", "__pycache__", *others)
    shutil.copytree(TRITON_MODELS, directory, ignore=left_out)
    model = directory / "prompt_classifier"
    spec = write_tiny_version(model / "1", heads=heads, max_tokens=max_tokens, encoder=encoder)
    for config in (model / "config.pbtxt", model / "configs" / "cpu.pbtxt"):
        config.write_text(render_spec(config.read_text().replace("versions: [ 2 ]", "versions: [ 1 ]"), spec))
    return directory


def render_spec(config: str, spec: dict[str, Any]) -> str:
    """Replace the one line of a config.pbtxt that carries the spec."""
    line = f'parameters {{ key: "spec" value {{ string_value: {json.dumps(json.dumps(spec))} }} }}'
    rendered, count = re.subn(r'^parameters \{ key: "spec" .*$', lambda _: line, config, flags=re.MULTILINE)
    assert count == 1
    return rendered


def expected_probabilities(words: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what the tiny classifier must say of a text: outcome [4], task [12], dimensions [6]."""
    ids = [WORDS.index(word) for word in words]
    mean = word_logits().astype(np.float64)[ids].mean(axis=0) if ids else np.zeros(sum(WIDTHS.values()))
    outcome, task, raw = np.split(mean, [4, 16])
    return _softmax(outcome / TEMPERATURE + BIAS), _softmax(task), 1 / (1 + np.exp(-raw))


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum())
