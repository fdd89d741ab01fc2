"""The exported graph computes what the trained model computes. Needs torch (the training environment)."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402  # after the skip

from classifier import checkpoint  # noqa: E402  # after the skip
from classifier.corpus import build_corpus, split_by_group  # noqa: E402  # after the skip
from classifier.data import RoutingRow, TaskRow  # noqa: E402  # after the skip
from classifier.errors import CheckpointError, ExportError  # noqa: E402  # after the skip
from classifier.export import CODE, export, parity  # noqa: E402  # after the skip
from classifier.features import dense_features, sparse_features  # noqa: E402  # after the skip
from classifier.fit import fit, logits  # noqa: E402  # after the skip
from classifier.recipe import Recipe  # noqa: E402  # after the skip
from classifier.render_config import spec_line  # noqa: E402  # after the skip
from classifier.static_encoder import Shape, StaticEncoder  # noqa: E402  # after the skip
from classifier.static_graph import static_graph  # noqa: E402  # after the skip
from classifier.vocabulary import token_weights  # noqa: E402  # after the skip

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "add", "prove", "theorem", "name", "city", "colour", "why", "code"]


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def random_model(seed: int = 0) -> StaticEncoder:
    generator = torch.Generator().manual_seed(seed)
    model = StaticEncoder(Shape(vocabulary=len(WORDS), dimensions=5, bigrams=31))
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator).half().float())
    model.token_weight.copy_((torch.rand(len(WORDS), generator=generator) + 0.5).half().float())
    model.token_weight[[0, 2, 3]] = 0
    return model.eval()


def corpus(rows: int = 240) -> tuple[list[RoutingRow], list[TaskRow]]:
    rng = np.random.default_rng(0)
    routing, tasks = [], []
    for _ in range(rows):
        hard = bool(rng.random() < 0.5)
        words = ["prove", "theorem", "why"] if hard else ["name", "city", "colour"]
        prompt = " ".join(rng.choice(words, size=rng.integers(3, 9)))
        routing.append(RoutingRow("s", prompt, float(not hard), 1.0, noisy_label=False, models={}))
        tasks.append(
            TaskRow("code " * int(rng.integers(1, 5)) if hard else prompt, "Code Generation" if hard else "Open QA")
        )
    return routing, tasks


def test_graph_and_torch_agree_on_batches_of_many_shapes() -> None:
    model = random_model()
    assert parity(model, static_graph(model)) < 1e-5


def test_a_wrong_graph_would_be_noticed() -> None:
    assert parity(random_model(0), static_graph(random_model(1))) > 0.1


def test_special_tokens_and_padding_change_nothing() -> None:
    model = random_model()
    bare, framed = np.array([5, 6, 7]), np.array([2, 5, 6, 7, 3])
    padded = logits(model, [framed, np.array([2, *[4] * 20, 3])])[0][0]
    assert logits(model, [bare])[0][0] == pytest.approx(logits(model, [framed])[0][0], abs=1e-6)
    assert padded == pytest.approx(logits(model, [framed])[0][0], abs=1e-6)


def test_an_empty_prompt_has_finite_logits() -> None:
    for ids in ([], [2, 3]):
        assert np.isfinite(logits(random_model(), [np.array(ids, dtype=np.int64)])[0]).all()


def test_features_times_weights_are_the_models_logits() -> None:
    model = random_model()
    ids = [np.array([2, 5, 6, 7, 5, 3]), np.array([2, 4, 3]), np.array([2, 3])]
    dense = dense_features(ids, model.vectors, model.token_weight)
    sparse = sparse_features(ids, model.token_weight, model.shape.bigrams)
    zero_tail = torch.zeros(dense.shape[1] - 5, 16)
    tail = torch.cat([model.length_logits, model.bias[None]])
    wanted = dense @ torch.cat([model.dense_logits, zero_tail])
    wanted = wanted + sparse.to_dense() @ torch.cat([model.token_logits, model.bigram_logits, tail])
    assert np.concatenate(logits(model, ids), axis=1) == pytest.approx(wanted.numpy(), abs=1e-5)


def fitted(recipe: Recipe) -> tuple[StaticEncoder, Tokenizer]:
    tokenizer = tiny_tokenizer()
    built = build_corpus(*corpus(), tokenizer, recipe.pair_average)
    vectors = torch.randn(len(WORDS), recipe.dimensions, generator=torch.Generator().manual_seed(0))
    weights = token_weights(tokenizer, built.examples.ids)
    return fit(vectors, weights, built.examples, recipe, lambda _: None), tokenizer


def test_training_learns_both_heads_and_is_deterministic() -> None:
    recipe = Recipe(dimensions=4, bigrams=31, iterations=20)
    model, tokenizer = fitted(recipe)
    prompts = ["prove theorem why", "name city", "code code"]
    outcome, task = logits(model, [np.array(tokenizer.encode(prompt).ids) for prompt in prompts])
    assert outcome[:2].argmax(axis=1).tolist() == [1, 0]  # only_strong, both
    assert task[1:].argmax(axis=1).tolist() == [6, 4]  # Open QA, Code Generation
    again, _ = fitted(recipe)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_splits_never_cut_a_group() -> None:
    groups = np.repeat(np.arange(200), 3)
    split = split_by_group(groups, seed=1)
    assert (split.train.astype(int) + split.calibration + split.test == 1).all()
    for part in (split.train, split.calibration, split.test):
        assert part.reshape(200, 3).all(axis=1).sum() * 3 == part.sum() > 0


def figures() -> dict[str, object]:
    routing = {
        name: {
            "apgr": 0.6,
            "apgr_low": 0.5,
            "apgr_high": 0.7,
            "cpt50": 0.4,
            "cpt80": 0.7,
            "strong_for_95": 0.6,
            "auc": 0.6,
        }
        for name in ("need_strong", "prompt_length")
    }
    return {"test_split": {"rows": 9, **routing, "task": {"rows": 9, "accuracy": 0.9, "majority": 0.3}}}


def saved(directory: Path) -> Path:
    spec = {
        "name": "tiny",
        "encoder": {"kind": "static", "source": "random numbers"},
        "max_tokens": 512,
        "training_data": {"sha256": "0", "rows": 9},
        "metrics": figures(),
    }
    checkpoint.save(directory, random_model(), spec, tiny_tokenizer().to_str())
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
    assert spec["encoder"] == {"kind": "static", "source": "random numbers"}
    assert spec_line(spec) in (tmp_path / "model" / "config.pbtxt").read_text()
    assert "| need_strong | 0.600 (0.500 to 0.700)" in (version / "README.md").read_text()
    assert any("parity with torch" in message for message in messages)


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
