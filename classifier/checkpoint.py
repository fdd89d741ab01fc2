"""A checkpoint: weights as safetensors, beside a spec.json that says what they are and how they were made."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from google.protobuf.message import DecodeError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from classifier.errors import CheckpointError
from classifier.files import whole
from classifier.graphs import read_graph
from classifier.static_encoder import Shape, StaticEncoder
from classifier.transformer_encoder import TransformerEncoder, TransformerShape
from classifier.vocabulary import load_tokenizer

Encoder = StaticEncoder | TransformerEncoder

WEIGHTS = "model.safetensors"
SPEC = "spec.json"
TOKENIZER = "tokenizer.json"
GRAPH = "model.onnx"  # in an exported version, in the place of WEIGHTS
# By the spec's encoder.kind: what holds the model's sizes, and the model.
KINDS: Final[Mapping[str, tuple[type[Any], type[Encoder]]]] = {
    "static": (Shape, StaticEncoder),
    "transformer": (TransformerShape, TransformerEncoder),
}


def save(directory: Path, model: Encoder, spec: dict[str, Any], tokenizer_json: str) -> None:
    """Write the three files; `spec` is the served spec, to which the sizes of the model are added."""
    document = {**spec, "encoder": {**spec["encoder"], "shape": asdict(model.shape)}}
    directory.parent.mkdir(parents=True, exist_ok=True)
    with whole(directory) as unfinished:
        unfinished.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, unfinished / WEIGHTS)
        (unfinished / SPEC).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (unfinished / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")


def load(directory: Path, dropout: float = 0.0) -> tuple[Encoder, dict[str, Any]]:
    """The model in evaluation mode and its spec; raises CheckpointError when files are missing or do not fit.

    `directory` is a checkpoint, or a version that was exported from one. `dropout` is for training a transformer on.
    """
    served = not (directory / WEIGHTS).is_file() and (directory / GRAPH).is_file()
    for name in (GRAPH if served else WEIGHTS, SPEC, TOKENIZER):
        if not (directory / name).is_file():
            raise CheckpointError(
                f"{directory / name} is missing: make it with `python -m classifier train --out {directory}`"
            )
    spec = read_spec(directory)
    kind = spec["encoder"].get("kind")
    if kind not in KINDS:
        raise CheckpointError(f"{directory}: encoder.kind is {kind!r}; {' and '.join(KINDS)} can be trained on")
    try:
        shape, encoder = KINDS[kind]
        options = {"dropout": dropout} if encoder is TransformerEncoder else {}
        model = encoder(shape(**spec["encoder"]["shape"]), **options)
        if served:
            read_graph(directory / GRAPH, model, with_dimensions=spec.get("dimensions") is not None)
        else:
            model.load_state_dict(load_file(directory / WEIGHTS))
    except (KeyError, TypeError, RuntimeError, SafetensorError, DecodeError) as error:
        raise CheckpointError(
            f"{directory}: {SPEC} and {GRAPH if served else WEIGHTS} do not fit together, or are not whole ({error}): "
            "train it again"
        ) from error
    entries = load_tokenizer(directory / TOKENIZER).get_vocab_size()
    if entries > model.shape.vocabulary:
        raise CheckpointError(
            f"{directory}: {TOKENIZER} has {entries:,} entries, the model {model.shape.vocabulary:,} words: it is "
            "another encoder's tokenizer"
        )
    with torch.no_grad():
        return model.eval(), spec


def read_spec(directory: Path) -> dict[str, Any]:
    """The spec.json of a checkpoint or a version; raises CheckpointError."""
    try:
        spec = json.loads((directory / SPEC).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{directory / SPEC} is not JSON ({error}): train it again") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("encoder"), dict):
        raise CheckpointError(
            f"{directory / SPEC} is not what `train` writes: an object with `encoder`; train it again"
        )
    return spec
