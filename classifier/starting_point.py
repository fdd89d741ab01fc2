"""Where training starts: the shipped versions, a checkpoint, or a published encoder on disk or on a hub."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from classifier import checkpoint, minilm
from classifier.checkpoint import Encoder
from classifier.errors import CheckpointError
from classifier.labels import TASK_TYPES
from classifier.transformer_encoder import TransformerEncoder

VERSIONS: Final = Path(__file__).parent.parent / "triton_models" / "prompt_classifier"
SHIPPED: Final = {"static": VERSIONS / "1", "minilm": VERSIONS / "2"}
PUBLISHED: Final = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Start:
    """What training is given besides the data."""

    model: Encoder | None  # None: a static encoder, fitted from nothing
    tokenizer_file: Path
    source: str  # whose weights these are, for the card
    name: str
    spec: dict[str, Any] | None  # of the version that is continued; None with heads that know nothing
    new_tasks: bool = False  # the task head has another set of labels than before, and knows nothing


def starting_point(encoder: str, mode: str, dropout: float) -> Start:
    """What `--encoder` and `--mode` name: static, minilm, a directory, or a hub's organisation/name.

    From `static` and `minilm`, `finetune` starts at MiniLM's published weights, the other modes at the shipped version.
    """
    if encoder == "static" and mode == "finetune":
        return Start(None, minilm.model_directory() / "tokenizer.json", "all-MiniLM-L6-v2", "static-minilm", None)
    if encoder == "minilm" and mode == "finetune":
        return _published(minilm.model_directory(), "all-MiniLM-L6-v2", "minilm", dropout)
    directory = SHIPPED.get(encoder, Path(encoder))
    if (directory / checkpoint.SPEC).is_file():
        model, spec = checkpoint.load(directory, dropout)
        return Start(model, directory / checkpoint.TOKENIZER, spec["encoder"]["source"], spec["name"], spec)
    if not directory.is_dir() and encoder.count("/") == 1:
        directory = _from_hub(encoder)
    missing = [name for name in PUBLISHED if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(
            f"--encoder {encoder}: {directory} lacks {', '.join(missing)}; give static, minilm, a checkpoint, a "
            "version directory, a directory with a published BERT, or a hub's organisation/name"
        )
    return _published(directory, encoder, Path(encoder).name, dropout)


def known_task_types(encoder: str, mode: str) -> tuple[str, ...]:
    """The task types of the version or checkpoint that `--encoder` names, else NVIDIA's."""
    directory = SHIPPED.get(encoder, Path(encoder))
    if not (directory / checkpoint.SPEC).is_file() or (encoder in SHIPPED and mode == "finetune"):
        return TASK_TYPES
    return tuple(checkpoint.read_spec(directory).get("task_types") or TASK_TYPES)


@torch.no_grad()
def _published(directory: Path, source: str, name: str, dropout: float) -> Start:
    """A published body under heads of zeros."""
    body = minilm.load_body(directory, dropout)
    model = TransformerEncoder(body.shape, dropout)
    model.body.load_state_dict(body.state_dict())
    for head in model.heads():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    return Start(model, directory / "tokenizer.json", source, name, None)


def _from_hub(name: str) -> Path:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointError(
            f"--encoder {name} is no directory, and huggingface_hub, which could fetch it, is missing"
        )
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(PUBLISHED)))
    except Exception as error:  # the hub's and the network's errors share no base
        raise CheckpointError(
            f"--encoder {name} is no directory, and a hub does not give it ({type(error).__name__}): check the name, "
            "or download it elsewhere and name the directory"
        ) from error
