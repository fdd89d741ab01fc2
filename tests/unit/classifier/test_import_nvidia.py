"""NVIDIA's checkpoint as a version: the numbers of its reference implementation. Needs torch and transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  # after the skip

from classifier.errors import CheckpointError  # noqa: E402  # after the skip
from classifier.import_nvidia import import_nvidia  # noqa: E402  # after the skip
from classifier.labels import DIMENSIONS  # noqa: E402  # after the skip
from classifier.starting_point import starting_point  # noqa: E402  # after the skip
from tests.tiny_classifier import load_scoring  # noqa: E402  # after the skip
from tests.unit.classifier.nvidia_reference import CONFIG, WORDS, Reference, write_checkpoint  # noqa: E402

TOLERANCE = 1e-4
OURS = {
    "creativity": "creativity_scope",
    "reasoning": "reasoning",
    "contextual_knowledge": "contextual_knowledge",
    "domain_knowledge": "domain_knowledge",
    "constraints": "constraint_ct",
    "few_shots": "number_of_few_shots",
}


def prompts() -> list[str]:
    """From one token to all that fit, so that distances reach every bucket."""
    rng = np.random.default_rng(5)
    return ["", *(" ".join(rng.choice(WORDS[4:], length).tolist()) for length in (1, 2, 7, 30, 130, 300, 510, 600))]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def source(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("nvidia"), reference)


def test_every_number_is_the_reference_s(reference: Reference, source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    import_nvidia(source, tmp_path / "3", said.append)
    assert "it has no outcome head: the router refuses policies on need_strong, gain and the like" in said
    scoring: Any = load_scoring(tmp_path / "3" / "scoring.py")
    scorer = scoring.Scorer.load(tmp_path / "3")
    scores = scorer.score(prompts())
    ids, _ = scorer.tokenizer.tokenize(prompts())
    assert len(ids[-1]) == 512
    wanted = [reference(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)) for row in ids]
    np.testing.assert_allclose(scores.task_type, np.concatenate([task.numpy() for task, _ in wanted]), atol=TOLERANCE)
    for column, name in enumerate(DIMENSIONS):
        theirs = [values[OURS[name]][0] for _, values in wanted]
        np.testing.assert_allclose(scores.dimensions[:, column], theirs, atol=TOLERANCE)
        assert np.ptp(theirs) > 10 * TOLERANCE  # the prompts are told apart at all
    assert np.isnan(scores.outcome).all()
    assert scorer.spec.labels["task_types"] == tuple(CONFIG["task_type_map"].values())


def test_few_shots_below_the_reference_s_limit_are_none(reference: Reference, source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    tensors["head_4.fc.bias"] = torch.tensor([12.0, 0, 0, 0, 0, 0])
    tensors["head_4.fc.weight"] = torch.zeros_like(tensors["head_4.fc.weight"])
    few = copied(source, tmp_path / "few")
    save_file(tensors, few / "model.safetensors")
    import_nvidia(few, tmp_path / "3", quiet)
    scorer = load_scoring(tmp_path / "3" / "scoring.py").Scorer.load(tmp_path / "3")
    assert scorer.score(["prove the theorem"]).dimensions[0, DIMENSIONS.index("few_shots")] == 0


def quiet(_: str) -> None:
    pass


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def without_a_tensor(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    del tensors["backbone.encoder.layer.1.attention.self.key_proj.weight"]
    save_file(tensors, directory / "model.safetensors")


def with_a_tensor_more(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    save_file({**tensors, "backbone.encoder.conv.conv.weight": torch.zeros(2)}, directory / "model.safetensors")


def truncated(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def of_another_width(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["head_1.fc.weight"] = torch.zeros(3, 64)
    save_file(tensors, directory / "model.safetensors")


def says(**changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        document = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**document, **changes}))

    return change


def with_a_greater_tokenizer(directory: Path) -> None:
    document = json.loads((directory / "tokenizer.json").read_text())
    document["model"]["vocab"] |= {f"word{number}": len(WORDS) + number for number in range(32)}
    (directory / "tokenizer.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "tokenizer.json").unlink(), r"lacks tokenizer.json: .*AutoTokenizer"),
        (truncated, r"model.safetensors cannot be read .*download it again"),
        (without_a_tensor, r"has no tensor '.*layer.1.attention.self.key_proj.weight': is it of this model, and whole"),
        (with_a_tensor_more, r"has what no DeBERTa-v3 has: backbone.encoder.conv.conv.weight"),
        (of_another_width, "the tensors' sizes do not fit together"),
        (lambda path: (path / "config.json").write_text("{"), "config.json is not as NVIDIA's"),
        (says(base_model="bert-base-uncased"), "base_model is 'bert-base-uncased'; this reads microsoft/deberta-v3"),
        (says(target_sizes={"task_type": 3}), "target_sizes has task_type; needed are task_type, creativity_scope"),
        (says(task_type_map={"0": "Brainstorming"}), r"task_type_map, .*needed \(KeyError: '1'\)"),
        (says(target_sizes={**CONFIG["target_sizes"], "no_label_reason": 2}), r"has heads of .* they do not fit"),
        (says(weights_map={**CONFIG["weights_map"], "reasoning": [0, 7]}), r"weights_map.reasoning .*\[0.0, 7.0\]"),
        (with_a_greater_tokenizer, "it is another's tokenizer"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), "tokenizer.json is not a tokenizer"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(
    source: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    directory = copied(source, tmp_path / "spoilt")
    spoil(directory)
    with pytest.raises(CheckpointError, match=message):
        import_nvidia(directory, tmp_path / "3", quiet)
    assert not (tmp_path / "3").exists()


def test_such_a_version_is_not_trained_on(source: Path, tmp_path: Path) -> None:
    import_nvidia(source, tmp_path / "3", quiet)
    with pytest.raises(CheckpointError, match=r"encoder.kind is 'deberta'; static and transformer can be trained on"):
        starting_point(str(tmp_path / "3"), "heads", 0.0)
