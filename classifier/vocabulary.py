"""What the static encoder knows before training: a vector and a weight per vocabulary entry."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from classifier import minilm
from classifier.errors import CheckpointError

CACHE = "vocabulary.safetensors"
SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]")
FIRST, LAST = "[CLS]", "[SEP]"


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer without padding and truncation, which are the caller's business; raises CheckpointError."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer ({error}): export or download it again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[NDArray[np.int64]]:
    """Token ids with [CLS] and [SEP], the text's end cut off where it is too long."""
    tokenizer.enable_truncation(max_length=max_tokens)
    encodings = tokenizer.encode_batch_fast(list(texts))
    tokenizer.no_truncation()
    return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]


def minilm_vectors(cache: Path, tokenizer: Tokenizer, progress: Callable[[str], None]) -> Tensor:
    """Each vocabulary entry alone through all-MiniLM-L6-v2, float32 [vocabulary, 384]; computed once."""
    if cache.is_file():
        return load_file(cache)["vectors"]
    body = minilm.load_body(minilm.model_directory())
    first, last = _token_id(tokenizer, FIRST), _token_id(tokenizer, LAST)
    parts: list[Tensor] = []
    done = 0
    for part in minilm.vocabulary_vectors(body, first=first, last=last):
        parts.append(part)
        done += len(part)
        if len(parts) % 10 == 0:
            progress(f"vocabulary through MiniLM: {done:,} of {body.shape.vocabulary:,} entries")
    vectors = torch.cat(parts)
    cache.parent.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": vectors}, cache)
    return vectors


def principal_components(vectors: Tensor, dimensions: int) -> tuple[Tensor, float]:
    """The vectors in their first principal components, and the variance that these keep (0..1)."""
    centred = vectors - vectors.mean(dim=0)
    values, axes = torch.linalg.eigh(centred.T @ centred)
    kept = float(values[-dimensions:].sum() / values.sum())
    return centred @ axes[:, -dimensions:].flip(1), kept


def token_weights(tokenizer: Tokenizer, ids: Sequence[NDArray[np.int64]]) -> Tensor:
    """Inverse document frequency over the prompts, mean 1; 0 for the tokens that are not text. [vocabulary]."""
    prompts_with = np.zeros(tokenizer.get_vocab_size())
    for row in ids:
        prompts_with[np.unique(row)] += 1
    idf = np.log((1 + len(ids)) / (1 + prompts_with))
    weights = torch.from_numpy(idf / idf.mean()).float()
    # A token of every prompt would weigh 0 and so be taken for padding.
    weights = weights.clamp(min=1e-3)
    weights[[_token_id(tokenizer, token) for token in SPECIAL_TOKENS]] = 0
    return weights


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    place = tokenizer.token_to_id(token)
    if place is None:
        raise CheckpointError(f"the tokenizer has no {token}; give one of BERT's family")
    return int(place)
