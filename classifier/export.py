"""Export a checkpoint as a version that Triton serves: model.onnx, tokenizer.json, spec.json, model card, code."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from classifier import checkpoint
from classifier.card import model_card
from classifier.checkpoint import Encoder
from classifier.errors import ExportError
from classifier.files import whole
from classifier.graphs import graph_of
from classifier.labels import INPUTS, OUTPUTS, TASK_TYPES
from classifier.render_config import render_config, rendered_names

# The version whose code a new version is given: the same files score with either encoder.
CODE: Final = Path(__file__).parent.parent / "triton_models" / "prompt_classifier" / "1"
MAX_BYTES: Final[Mapping[str, int]] = {
    "static": 16_000_000,
    "transformer": 48_000_000,
}  # those with NVIDIA's task types are committed
TOLERANCE: Final = 1e-4  # logits; fp32 sums in another order differ by less

Module = TypeVar("Module", bound=nn.Module)


def export(source: Path, version: Path, progress: Callable[[str], None]) -> None:
    """Write the version directory and put its spec into the configs beside it; nothing changes on an error."""
    model, spec = checkpoint.load(source)
    served_model = rounded(model)
    graph = graph_of(served_model, with_dimensions=spec.get("dimensions") is not None)
    size, allowed = graph.ByteSize(), MAX_BYTES[spec["encoder"]["kind"]]
    if size > allowed and spec["task_types"] == list(TASK_TYPES):
        raise ExportError(f"model.onnx would have {size:,} bytes, allowed are {allowed:,}: train a smaller encoder")
    progress(f"fp16 weights move a logit by {parity(model, graph):.2e} at most")
    difference = parity(served_model, graph)
    progress(f"parity with torch: greatest difference of a logit {difference:.2e} (allowed {TOLERANCE:.0e})")
    if not difference <= TOLERANCE:
        raise ExportError(f"the graph differs from torch by {difference:.2e}, allowed is {TOLERANCE:.0e}")
    write_version(version, graph, source / checkpoint.TOKENIZER, spec, model_card(spec, size))
    progress(f"wrote {version}: model.onnx of {size:,} bytes")
    progress(f"spec rendered into {rendered_names(render_config(version))}")


def write_version(version: Path, graph: onnx.ModelProto, tokenizer: Path, spec: Mapping[str, Any], card: str) -> None:
    """Write a version directory, or put a whole new one in its place; the tokenizer is copied."""
    version.parent.mkdir(parents=True, exist_ok=True)
    with whole(version) as unfinished:
        unfinished.mkdir()
        onnx.save(graph, unfinished / "model.onnx")
        shutil.copyfile(tokenizer, unfinished / "tokenizer.json")
        (unfinished / "spec.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
        (unfinished / "README.md").write_text(card, encoding="utf-8")
    bring_code(version)


def rounded(model: Module) -> Module:
    """A copy with the fp16 weights that are served; what was trained at fp16 comes back as it is."""
    served = copy.deepcopy(model)
    served.load_state_dict({name: weights.half().float() for name, weights in model.state_dict().items()})
    return served.eval()


def bring_code(version: Path) -> None:
    """Give the version the code that scores it; a link to the very file stays a link."""
    for file in CODE.glob("*.py"):
        target = version / file.name
        if not (target.exists() and target.samefile(file)):
            shutil.copyfile(file, target)


def parity(model: Encoder, graph: onnx.ModelProto, *, seed: int = 0) -> float:
    """The greatest difference between an output of torch and of ONNX Runtime, over batches of many shapes."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), _one_thread(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(seed)
    worst = 0.0
    for rows, tokens in ((1, 1), (1, 2), (3, 17), (8, 100), (4, 512)):
        ids = rng.integers(0, model.shape.vocabulary, (rows, tokens))
        lengths = rng.integers(0, tokens + 1, (rows, 1))  # 0: a row that is padding only
        mask = (np.arange(tokens) < lengths).astype(np.int64)
        served = session.run(names, dict(zip(INPUTS, (ids, mask), strict=True)))
        with torch.no_grad():
            trained = dict(zip(OUTPUTS, model(torch.from_numpy(ids), torch.from_numpy(mask)), strict=False))
        for name, theirs in zip(names, served, strict=True):
            worst = max(worst, float(np.abs(trained[name].numpy() - theirs).max()))
    return worst


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options
