"""Export a checkpoint as a version that Triton serves: model.onnx, tokenizer.json, spec.json, model card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from classifier import checkpoint
from classifier.card import model_card
from classifier.errors import ExportError
from classifier.render_config import render_config, rendered_names
from classifier.static_encoder import StaticEncoder
from classifier.static_graph import static_graph

MAX_BYTES = 16_000_000  # the weights are committed
TOLERANCE = 1e-4  # logits; fp32 sums in another order differ by less


def export(source: Path, version: Path, progress: Callable[[str], None]) -> None:
    """Write the version directory and put its spec into the configs beside it; nothing changes on an error."""
    model, spec = checkpoint.load(source)
    graph = static_graph(model)
    size = graph.ByteSize()
    if size > MAX_BYTES:
        raise ExportError(
            f"model.onnx would have {size:,} bytes, allowed are {MAX_BYTES:,}: train with fewer "
            "--dimensions or --bigrams"
        )
    difference = parity(model, graph)
    progress(f"parity with torch: greatest difference of a logit {difference:.2e} (allowed {TOLERANCE:.0e})")
    if not difference <= TOLERANCE:
        raise ExportError(f"the graph differs from torch by {difference:.2e}, allowed is {TOLERANCE:.0e}")
    version.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, version / "model.onnx")
    (version / "tokenizer.json").write_bytes((source / checkpoint.TOKENIZER).read_bytes())
    served = served_spec(spec)
    (version / "spec.json").write_text(json.dumps(served, indent=2) + "\n", encoding="utf-8")
    (version / "README.md").write_text(model_card(spec, size), encoding="utf-8")
    progress(f"wrote {version}: model.onnx of {size:,} bytes")
    progress(f"spec rendered into {rendered_names(render_config(version))}")


def served_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec without what only training needs to know."""
    encoder = {key: value for key, value in spec["encoder"].items() if key in ("kind", "source")}
    return {**spec, "encoder": encoder}


def parity(model: StaticEncoder, graph: onnx.ModelProto, *, seed: int = 0) -> float:
    """The greatest difference between a logit of torch and of ONNX Runtime, over batches of many shapes."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), _one_thread(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    worst = 0.0
    for rows, tokens in ((1, 1), (1, 2), (3, 17), (8, 100), (4, 512)):
        ids = rng.integers(0, model.shape.vocabulary, (rows, tokens))
        lengths = rng.integers(0, tokens + 1, (rows, 1))  # 0: a row that is padding only
        mask = (np.arange(tokens) < lengths).astype(np.int64)
        served = session.run(["outcome_logits", "task_logits"], {"input_ids": ids, "attention_mask": mask})
        with torch.no_grad():
            trained = model(torch.from_numpy(ids), torch.from_numpy(mask))
        for ours, theirs in zip(trained, served, strict=True):
            worst = max(worst, float(np.abs(ours.numpy() - theirs).max()))
    return worst


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options
