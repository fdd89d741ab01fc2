"""A fine-tuned transformer and a sparse expert, averaged. Needs torch; the encoder is tiny and random."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from classifier.blend import blend  # noqa: E402  # after the skip
from classifier.corpus import build_corpus  # noqa: E402  # after the skip
from classifier.inference import Outputs, outputs  # noqa: E402  # after the skip
from classifier.recipe import DataRecipe, FinetuneRecipe  # noqa: E402  # after the skip
from classifier.vocabulary import token_weights  # noqa: E402  # after the skip
from tests.unit.classifier.tiny import labelled_rows, random_transformer, tiny_tokenizer  # noqa: E402

PROMPTS = ("prove theorem why", "name city", "code code")


def blended(share: float) -> Outputs:
    tokenizer, model = tiny_tokenizer(), random_transformer()
    examples = build_corpus(labelled_rows(100), tokenizer, 64, DataRecipe()).examples
    recipe = FinetuneRecipe(blend_share=share, blend_penalty=1e-4)
    blend(model, examples, token_weights(tokenizer, examples.ids), recipe, lambda _: None)
    return outputs(model, [np.array(tokenizer.encode(prompt).ids) for prompt in PROMPTS])


def logit(chances: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(chances / (1 - chances)))


def test_every_head_is_the_average_of_body_and_sparse_expert() -> None:
    body, sparse, both = blended(0), blended(1), blended(0.3)
    assert both.outcome == pytest.approx(0.7 * body.outcome + 0.3 * sparse.outcome, abs=1e-4)
    assert both.task == pytest.approx(0.7 * body.task + 0.3 * sparse.task, abs=1e-4)
    assert logit(both.dimensions) == pytest.approx(
        0.7 * logit(body.dimensions) + 0.3 * logit(sparse.dimensions), abs=1e-3
    )


def test_the_sparse_expert_learns_what_words_say() -> None:
    said = blended(1)
    assert said.outcome[:2].argmax(axis=1).tolist() == [1, 0]  # only_strong, both
    assert said.task[1:].argmax(axis=1).tolist() == [6, 4]  # Open QA, Code Generation
    assert said.dimensions[2, 1] > 0.7 > 0.3 > said.dimensions[1, 1]  # reasoning
