"""The exported graph computes what the trained model computes. Needs torch (the training environment)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tokenizers import Tokenizer  # noqa: E402  # after the skip

from classifier import checkpoint  # noqa: E402  # after the skip
from classifier.card import model_card  # noqa: E402  # after the skip
from classifier.corpus import build_corpus, split_by_group  # noqa: E402  # after the skip
from classifier.errors import CheckpointError, ExportError  # noqa: E402  # after the skip
from classifier.export import CODE, export, parity  # noqa: E402  # after the skip
from classifier.features import dense_features, sparse_features  # noqa: E402  # after the skip
from classifier.fit import fit  # noqa: E402  # after the skip
from classifier.inference import outputs  # noqa: E402  # after the skip
from classifier.labels import DIMENSIONS, TASK_TYPES  # noqa: E402  # after the skip
from classifier.recipe import DataRecipe, StaticRecipe  # noqa: E402  # after the skip
from classifier.render_config import spec_line  # noqa: E402  # after the skip
from classifier.static_encoder import StaticEncoder  # noqa: E402  # after the skip
from classifier.static_graph import static_graph  # noqa: E402  # after the skip
from classifier.vocabulary import token_weights  # noqa: E402  # after the skip
from tests.unit.classifier.tiny import WORDS, labelled_rows, random_static, tiny_tokenizer  # noqa: E402


def test_graph_and_torch_agree_on_batches_of_many_shapes() -> None:
    model = random_static()
    assert parity(model, static_graph(model, with_dimensions=True)) < 1e-5


def test_a_wrong_graph_would_be_noticed() -> None:
    assert parity(random_static(0), static_graph(random_static(1), with_dimensions=True)) > 0.1


def test_special_tokens_and_padding_change_nothing() -> None:
    model = random_static()
    bare, framed = np.array([5, 6, 7]), np.array([2, 5, 6, 7, 3])
    padded = outputs(model, [framed, np.array([2, *[4] * 20, 3])]).outcome[0]
    assert outputs(model, [bare]).outcome[0] == pytest.approx(outputs(model, [framed]).outcome[0], abs=1e-6)
    assert padded == pytest.approx(outputs(model, [framed]).outcome[0], abs=1e-6)


def test_an_empty_prompt_has_finite_logits() -> None:
    for ids in ([], [2, 3]):
        assert np.isfinite(outputs(random_static(), [np.array(ids, dtype=np.int64)]).outcome).all()


def test_features_times_weights_are_the_models_logits() -> None:
    model = random_static()
    ids = [np.array([2, 5, 6, 7, 5, 3]), np.array([2, 4, 3]), np.array([2, 3])]
    dense = dense_features(ids, model.vectors, model.token_weight)
    sparse = sparse_features(ids, model.token_weight, model.shape.bigrams)
    zero_tail = torch.zeros(dense.shape[1] - 5, sum(model.widths))
    tail = torch.cat([model.sparse.length_logits, model.bias[None]])
    wanted = dense @ torch.cat([model.dense_logits, zero_tail])
    wanted = wanted + sparse.to_dense() @ torch.cat([model.sparse.token_logits, model.sparse.bigram_logits, tail])
    said = outputs(model, ids)
    seen = np.concatenate([said.outcome, said.task, np.log(said.dimensions / (1 - said.dimensions))], axis=1)
    assert seen == pytest.approx(wanted.numpy(), abs=1e-3)


def fitted(recipe: StaticRecipe) -> tuple[StaticEncoder, Tokenizer]:
    tokenizer = tiny_tokenizer()
    built = build_corpus(labelled_rows(), tokenizer, 64, DataRecipe())
    vectors = torch.randn(len(WORDS), recipe.dimensions, generator=torch.Generator().manual_seed(0))
    weights = token_weights(tokenizer, built.examples.ids)
    return fit(vectors, weights, built.examples, recipe, lambda _: None), tokenizer


def test_training_learns_all_heads_and_is_deterministic() -> None:
    recipe = StaticRecipe(dimensions=4, bigrams=31, iterations=20)
    model, tokenizer = fitted(recipe)
    prompts = ["prove theorem why", "name city", "code code"]
    said = outputs(model, [np.array(tokenizer.encode(prompt).ids) for prompt in prompts])
    assert said.outcome[:2].argmax(axis=1).tolist() == [1, 0]  # only_strong, both
    assert said.task[1:].argmax(axis=1).tolist() == [6, 4]  # Open QA, Code Generation
    assert said.dimensions[2, 1] > 0.7 > 0.3 > said.dimensions[1, 1]  # reasoning
    again, _ = fitted(recipe)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_splits_never_cut_a_group() -> None:
    groups = np.repeat(np.arange(200), 3)
    split = split_by_group(groups, seed=1)
    assert (split.train.astype(int) + split.calibration + split.test == 1).all()
    for part in (split.train, split.calibration, split.test):
        assert part.reshape(200, 3).all(axis=1).sum() * 3 == part.sum() > 0


def facts() -> dict[str, Any]:
    """What a spec says of its training."""
    seen = {
        "apgr": 0.6,
        "apgr_low": 0.5,
        "apgr_high": 0.7,
        "cpt50": 0.4,
        "cpt80": 0.7,
        "strong_for_95": 0.6,
        "auc": 0.6,
    }
    test = {
        "rows": 9,
        "always_cheap": 0.3,
        "always_strong": 0.9,
        "need_strong": {**seen, "ece": 0.02},
        "prompt_length": seen,
        "sources": {"s": {"rows": 9, "apgr": 0.6, "prompt_length_apgr": None}},
        "own_task": {"rows": 9, "accuracy": 0.9, "majority": 0.3},
        "dimensions": {"rows": 9, "spearman": dict.fromkeys(DIMENSIONS, 0.7) | {"few_shots": None}},
    }
    return {
        "training_data": {"sha256": "0", "rows": 9},
        "training": {"commands": ["python -m classifier train"], "seed": 5, "minutes": 2.0},
        "metrics": {"test_split": test},
    }


def saved(directory: Path) -> Path:
    spec = {
        "name": "tiny",
        "task_types": list(TASK_TYPES),
        "encoder": {"kind": "static", "source": "random numbers"},
        "dimensions": list(DIMENSIONS),
        "max_tokens": 512,
        **facts(),
    }
    checkpoint.save(directory, random_static(), spec, tiny_tokenizer().to_str())
    return directory


def test_export_writes_a_version_and_its_config(tmp_path: Path) -> None:
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    (tmp_path / "model" / "config.pbtxt").write_text(spec_line({}) + "\n")
    messages: list[str] = []
    export(saved(tmp_path / "checkpoint"), version, messages.append)
    files = {path.name for path in version.iterdir()}
    assert {"README.md", "model.onnx", "spec.json", "tokenizer.json"} <= files
    assert files >= {path.name for path in CODE.glob("*.py")} >= {"model.py", "scoring.py"}
    spec = json.loads((version / "spec.json").read_text())
    assert spec["encoder"]["source"] == "random numbers"
    assert spec_line(spec) in (tmp_path / "model" / "config.pbtxt").read_text()
    card = (version / "README.md").read_text()
    assert "| need_strong | 0.600 (0.500 to 0.700) | 40% | 70% | 60% | 0.600 | 0.020 |" in card
    assert "python -m classifier train" in card
    assert "reasoning 0.700" in card
    assert any("parity with torch" in message for message in messages)


def test_a_card_says_of_which_runs_its_figures_out_of_domain_are() -> None:
    spec = {
        "name": "tiny",
        "task_types": list(TASK_TYPES),
        "encoder": {"kind": "static", "source": "random numbers", "shape": {"dimensions": 8, "bigrams": 16}},
        "max_tokens": 512,
        **facts(),
    }
    assert "Out of domain" not in model_card(spec, 1_000_000)
    spec["metrics"]["leave_one_source_out"] = {**spec["metrics"]["test_split"], "rows": 1234, "note": "Smaller runs."}
    _, _, held_out = model_card(spec, 1_000_000).partition("## Out of domain")
    assert "(1,234 prompts)\n\nSmaller runs.\n\n| score |" in held_out


def test_too_large_a_model_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classifier.export.MAX_BYTES", {"static": 1000})
    with pytest.raises(ExportError, match="allowed are 1,000"):
        export(saved(tmp_path / "checkpoint"), tmp_path / "version", lambda _: None)
    assert not (tmp_path / "version").exists()


def test_a_checkpoint_that_does_not_fit_its_spec_is_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    spec = json.loads((directory / "spec.json").read_text())
    spec["encoder"]["shape"]["bigrams"] = 7
    (directory / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match="do not fit together"):
        checkpoint.load(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        checkpoint.load(directory)
