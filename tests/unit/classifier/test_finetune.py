"""Fine-tuning learns, resumes and repeats itself. Needs torch; the encoders are tiny and random."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from classifier.batches import shuffled_batches  # noqa: E402  # after the skip
from classifier.corpus import build_corpus  # noqa: E402  # after the skip
from classifier.examples import Examples  # noqa: E402  # after the skip
from classifier.finetune import Run, finetune, learning_rate_share  # noqa: E402  # after the skip
from classifier.inference import outputs  # noqa: E402  # after the skip
from classifier.recipe import DataRecipe, FinetuneRecipe  # noqa: E402  # after the skip
from classifier.transformer_encoder import TransformerEncoder  # noqa: E402  # after the skip
from tests.unit.classifier.tiny import labelled_rows, random_transformer, tiny_tokenizer  # noqa: E402

RECIPE = FinetuneRecipe(epochs=2, batch=16, learning_rate=1e-3, head_learning_rate=1e-2, validations=2)


def examples(rows: int, seed: int = 0) -> Examples:
    return build_corpus(labelled_rows(rows, seed), tiny_tokenizer(), 64, DataRecipe()).examples


def tuned(state: Path, recipe: FinetuneRecipe = RECIPE) -> tuple[TransformerEncoder, list[str]]:
    encoder, messages = random_transformer(), list[str]()
    seconds = finetune(encoder, examples(80), examples(20, 1), recipe, seed=3, state=state, progress=messages.append)
    assert seconds is not None
    return encoder, messages


def weights(encoder: TransformerEncoder) -> list[np.ndarray]:
    return [parameter.numpy() for parameter in encoder.state_dict().values()]


def same(one: TransformerEncoder, other: TransformerEncoder) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_all_heads_learn_and_the_word_vectors_stay(tmp_path: Path) -> None:
    encoder, _ = tuned(tmp_path, replace(RECIPE, epochs=10))
    tokenizer = tiny_tokenizer()
    said = outputs(
        encoder, [np.array(tokenizer.encode(text).ids) for text in ("prove theorem why", "name city", "code code")]
    )
    assert said.outcome[:2].argmax(axis=1).tolist() == [1, 0]  # only_strong, both
    assert said.task[1:].argmax(axis=1).tolist() == [6, 4]  # Open QA, Code Generation
    assert said.dimensions[2, 1] > 0.5 > said.dimensions[1, 1]  # reasoning
    fresh = random_transformer().body.embeddings.word_embeddings.weight
    assert torch.equal(encoder.body.embeddings.word_embeddings.weight, fresh)


def test_a_seed_gives_the_same_weights_again(tmp_path: Path) -> None:
    assert same(tuned(tmp_path / "one")[0], tuned(tmp_path / "two")[0])


def test_a_run_that_was_killed_ends_at_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = tuned(tmp_path / "whole")
    step = Run._step

    def killed_at_step_15(run: Run, rows: np.ndarray) -> Any:
        if run.position.step == 9:
            raise KeyboardInterrupt
        return step(run, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "_step", killed_at_step_15)
        with pytest.raises(KeyboardInterrupt):
            tuned(tmp_path / "killed")
    resumed, messages = tuned(tmp_path / "killed")
    assert any(message.startswith("resumed at step ") for message in messages)
    assert same(whole, resumed)


def test_the_state_of_another_run_is_not_taken_up(tmp_path: Path) -> None:
    tuned(tmp_path)
    _, messages = tuned(tmp_path, FinetuneRecipe(epochs=1, batch=16, learning_rate=2e-3))
    assert any("another run" in message for message in messages)


def test_it_stops_when_validation_gets_no_better(tmp_path: Path) -> None:
    hopeless = FinetuneRecipe(epochs=5, batch=16, learning_rate=5.0, head_learning_rate=5.0, patience=1)
    _, messages = tuned(tmp_path, hopeless)
    assert len([message for message in messages if "validation loss" in message]) < 10


def test_batches_hold_every_row_once_and_follow_from_the_seed() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 1000).tolist()
    batches = shuffled_batches(lengths, 16, (1, 2))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    assert max(len(batch) for batch in batches) == 16
    again, other = shuffled_batches(lengths, 16, (1, 2)), shuffled_batches(lengths, 16, (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other, strict=True))


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    shares = [learning_rate_share(step, 100, 0.1) for step in range(101)]
    assert shares[0] < shares[5] < shares[9]
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] == 0
