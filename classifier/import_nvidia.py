"""NVIDIA's own classifier, `nvidia/prompt-task-and-complexity-classifier`, as a version that Triton serves.

    model.safetensors, config.json -> DeBERTa-v3, eight heads -> task logits and six dimensions; tokenizer.json

A head's answer is the mean of its classes' weights (`weights_map`) under their probabilities, over its `divisor_map`.
There is no outcome head: nothing in it says whether a model's answer will do.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from classifier.deberta_graph import MAX_TOKENS, Checkpoint, deberta_body, linear
from classifier.errors import CheckpointError
from classifier.export import write_version
from classifier.labels import DIMENSIONS
from classifier.onnx_graph import Graph
from classifier.render_config import render_config, rendered_names

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
# Heads by number, and what our contract calls them; no_label_reason is part of no score.
HEADS: Final = {
    "task_type": None,
    "creativity_scope": "creativity",
    "reasoning": "reasoning",
    "contextual_knowledge": "contextual_knowledge",
    "number_of_few_shots": "few_shots",
    "domain_knowledge": "domain_knowledge",
    "no_label_reason": None,
    "constraint_ct": "constraints",
}
MOST: Final = {"few_shots": 5.0}  # a number of examples; the others are at most 1
LEAST_FEW_SHOTS: Final = 0.04995  # less than 0.05, rounded to four decimals, counts as none
EXPANDED: Final = "backbone.embeddings.position_ids"  # older releases saved the numbers 0 to 511


@dataclass(frozen=True, slots=True)
class Config:
    """What config.json says of the heads."""

    base_model: str
    task_types: tuple[str, ...]
    sizes: Mapping[str, int]  # classes of each head, by NVIDIA's names
    weights: Mapping[str, np.ndarray]  # of each head's classes, divided by its divisor; none for task_type


def import_nvidia(source: Path, version: Path, progress: Callable[[str], None]) -> None:
    """Write the version directory and put its spec into the configs beside it; nothing changes on an error.

    Raises CheckpointError when a file is missing or broken, or when the files do not fit together.
    """
    missing = [name for name in (WEIGHTS, CONFIG, TOKENIZER) if not (source / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{source} lacks {', '.join(missing)}: give a download of nvidia/prompt-task-and-complexity-classifier; a "
            f"{TOKENIZER} that is not there is written by transformers' AutoTokenizer, save_pretrained"
        )
    config = read_config(source / CONFIG)
    graph = nvidia_graph(_tensors(source / WEIGHTS), config)
    _check_tokenizer(source / TOKENIZER, graph)
    spec = _spec(config)
    write_version(version, graph, source / TOKENIZER, spec, _CARD.format(base=config.base_model))
    progress(f"wrote {version}: model.onnx of {graph.ByteSize():,} bytes, {len(config.task_types)} task types")
    progress("it has no outcome head: the router refuses policies on need_strong, gain and the like")
    progress(f"spec rendered into {rendered_names(render_config(version))}")


def read_config(path: Path) -> Config:
    """Read and check config.json; raises CheckpointError naming the key, what was seen and what is needed."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        base, sizes = document["base_model"], document["target_sizes"]
        task_types = tuple(document["task_type_map"][str(number)] for number in range(sizes["task_type"]))
        weights = {
            name: np.array(document["weights_map"][name], np.float32) / np.float32(document["divisor_map"][name])
            for name, ours in HEADS.items()
            if ours is not None
        }
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} is not as NVIDIA's: base_model, target_sizes, task_type_map, weights_map and divisor_map are "
            f"needed ({type(error).__name__}: {error})"
        ) from None
    if "deberta-v3" not in str(base).lower():
        raise CheckpointError(f"{path}: base_model is {base!r}; this reads microsoft/deberta-v3 of any size")
    if set(sizes) != set(HEADS):
        raise CheckpointError(f"{path}: target_sizes has {', '.join(sizes)}; needed are {', '.join(HEADS)}")
    for name, values in weights.items():
        most = MOST.get(str(HEADS[name]), 1.0)
        if values.shape != (sizes[name],) or not (values.min() >= 0 and values.max() <= most):
            raise CheckpointError(
                f"{path}: weights_map.{name} over divisor_map.{name} is {values.tolist()}; needed are "
                f"{sizes[name]} numbers from 0 to {most:g}"
            )
    return Config(str(base), task_types, sizes, weights)


def nvidia_graph(tensors: Mapping[str, np.ndarray], config: Config) -> onnx.ModelProto:
    """The graph: input_ids, attention_mask int64 [batch, tokens] -> task_logits and dimensions, float32."""
    checkpoint = Checkpoint(tensors)
    graph = Graph()
    try:
        pooled = deberta_body(graph, checkpoint)
        heads = {name: linear(graph, checkpoint, f"head_{place}.fc", pooled) for place, name in enumerate(HEADS)}
        found = {name: len(checkpoint[f"head_{place}.fc.bias"]) for place, name in enumerate(HEADS)}
    except KeyError as error:
        raise CheckpointError(f"{WEIGHTS} has no tensor {error}: is it of this model, and whole?") from None
    if found != dict(config.sizes):
        raise CheckpointError(f"{WEIGHTS} has heads of {found}, {CONFIG} says {dict(config.sizes)}: they do not fit")
    unknown = sorted(checkpoint.unread - {EXPANDED})
    if unknown:
        raise CheckpointError(f"{WEIGHTS} has what no DeBERTa-v3 has: {', '.join(unknown[:5])}")
    graph.output("task_logits", heads["task_type"], len(config.task_types))
    dimensions = {str(ours): _dimension(graph, config, name, heads[name]) for name, ours in HEADS.items() if ours}
    side_by_side = graph.node("Concat", *(dimensions[name] for name in DIMENSIONS), axis=1)
    graph.output("dimensions", side_by_side, len(DIMENSIONS))
    try:
        return graph.build("nvidia_prompt_task_and_complexity")
    except onnx.shape_inference.InferenceError as error:
        raise CheckpointError(f"{WEIGHTS}: the tensors' sizes do not fit together ({error})") from None


def _dimension(graph: Graph, config: Config, name: str, logits: str) -> str:
    """One dimension of every row, [n, 1]."""
    weights = graph.constant(f"{name}_weights", config.weights[name][:, None])
    value = graph.node("MatMul", graph.node("Softmax", logits, axis=1), weights)
    if HEADS[name] != "few_shots":
        return value
    some = graph.node("GreaterOrEqual", value, graph.number(LEAST_FEW_SHOTS))
    return graph.node("Where", some, value, graph.number(0.0))


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return {name: tensor.astype(np.float32) for name, tensor in load_file(path).items()}
    except (SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): download it again") from None


def _check_tokenizer(path: Path, graph: onnx.ModelProto) -> None:
    try:
        entries = Tokenizer.from_file(str(path)).get_vocab_size()
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from None
    rows = next(tensor.dims[0] for tensor in graph.graph.initializer if tensor.name == "words")
    if entries > rows:
        raise CheckpointError(f"{path} has {entries:,} entries, the model {rows:,} words: it is another's tokenizer")


def _spec(config: Config) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "nvidia-prompt-task-and-complexity",
        "outcomes": None,
        "task_types": list(config.task_types),
        "dimensions": list(DIMENSIONS),
        "encoder": {"kind": "deberta", "source": config.base_model},
        "max_tokens": MAX_TOKENS,
        "calibration": {"temperature": 1.0, "bias": [0.0] * 4},
        "training_data": {"sha256": None, "rows": None},
        "metrics": {},
    }


_CARD: Final = """\
# NVIDIA's prompt task and complexity classifier

Written by `python -m classifier import-nvidia` from NVIDIA's checkpoint; do not edit. Its licence is NVIDIA's.

{base}, mean pooling, fp32. **Task head** and **dimensions head** answer what NVIDIA's reference implementation does;
`complexity` is its prompt_complexity_score. There is **no outcome head**: its output is NaN.
"""
