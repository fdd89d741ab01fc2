"""What the two experts of a static encoder see of a whole corpus, as matrices to fit them on.

Row for row the same numbers as in `static_encoder.py`; tests/unit/classifier/test_export.py holds the two together.
"""

import numpy as np
import torch
from torch import Tensor

from classifier.examples import Tokens
from classifier.sparse_expert import FIRST_FACTOR, SECOND_FACTOR, length_features


def mean_vectors(ids: Tokens, vectors: Tensor, token_weight: Tensor) -> Tensor:
    """The weighted mean of each prompt's vectors, float32 [n, dimensions]."""
    table, weights = vectors.numpy(), token_weight.numpy()
    means = np.zeros((len(ids), table.shape[1]), np.float32)
    for row, tokens in enumerate(ids):
        weight = weights[tokens]
        means[row] = weight @ table[tokens] / (weight.sum() + 1e-6)
    return torch.from_numpy(means)


def dense_features(ids: Tokens, vectors: Tensor, token_weight: Tensor) -> Tensor:
    """Mean vector, length features and a constant 1: float32 [n, dimensions + LENGTH_STEPS + 1]."""
    return torch.cat([mean_vectors(ids, vectors, token_weight), _length_and_one(ids, token_weight)], dim=1)


def sparse_features(ids: Tokens, token_weight: Tensor, bigrams: int) -> Tensor:
    """Tokens, hashed bigrams, length and a constant 1: sparse [n, vocabulary + bigrams + LENGTH_STEPS + 1]."""
    vocabulary = len(token_weight)
    visible = token_weight.numpy() > 0
    places, values = [], []
    for tokens in ids:
        seen = visible[tokens]
        first, second = tokens[:-1], tokens[1:]
        pairs = ((first * FIRST_FACTOR + second * SECOND_FACTOR) % bigrams)[seen[:-1] & seen[1:]]
        places.append(np.concatenate([tokens[seen], vocabulary + pairs]))
        values.append(
            np.concatenate([np.full(part, (part + 1) ** -0.5, np.float32) for part in (seen.sum(), len(pairs))])
        )
    rows = np.repeat(np.arange(len(ids)), [len(place) for place in places])
    bags = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows, np.concatenate(places)])),
        torch.from_numpy(np.concatenate(values)),
        (len(ids), vocabulary + bigrams),
        check_invariants=True,
    )
    return torch.cat([bags, _length_and_one(ids, token_weight).to_sparse()], dim=1).coalesce()


def _length_and_one(ids: Tokens, token_weight: Tensor) -> Tensor:
    visible = (token_weight > 0).numpy()
    tokens = torch.tensor([[float(visible[row].sum())] for row in ids])
    return torch.cat([length_features(tokens), torch.ones(len(ids), 1)], dim=1)
