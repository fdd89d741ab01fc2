"""The scoring code against a classifier whose every number is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_classifier import (
    POISON,
    WIDTHS,
    WORDS,
    expected_probabilities,
    load_scoring,
    tiny_spec,
    write_tiny_version,
)

scoring = load_scoring()


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("version")
    write_tiny_version(directory)
    return directory


@pytest.fixture(scope="module")
def scorer(version: Path) -> Any:
    return scoring.Scorer.load(version)


def test_known_texts_get_known_probabilities(scorer: Any) -> None:
    texts = ["easy poem .", "why hard code", "what", "hard " * 200]
    scores = scorer.score(texts)
    for row, text in enumerate(texts):
        outcome, task, dimensions = expected_probabilities(text.split())
        np.testing.assert_allclose(scores.outcome[row], outcome, atol=1e-5)
        np.testing.assert_allclose(scores.task_type[row], task, atol=1e-5)
        np.testing.assert_allclose(scores.dimensions[row], dimensions, atol=1e-5)


def test_shapes_and_types(scorer: Any) -> None:
    scores = scorer.score(["easy", "hard", ""])
    assert scores.outcome.shape == (3, 4)
    assert scores.task_type.shape == (3, 12)
    assert scores.dimensions.shape == (3, 6)
    assert scores.complexity.shape == (3, 7)
    assert scores.tokens.shape == (3, 2)
    assert {a.dtype for a in (scores.outcome, scores.task_type, scores.dimensions, scores.complexity)} == {
        np.dtype(np.float32)
    }
    assert scores.tokens.dtype == np.int32


def test_no_text_at_all(scorer: Any) -> None:
    scores = scorer.score([])
    assert scores.outcome.shape == (0, 4)
    assert scores.complexity.shape == (0, 7)
    assert scores.padded_tokens == 0


def test_empty_text_is_scored(scorer: Any) -> None:
    scores = scorer.score(["", "  \n"])
    np.testing.assert_allclose(scores.outcome, [expected_probabilities([])[0]] * 2, atol=1e-5)
    assert scores.tokens.tolist() == [[0, 0], [0, 0]]


@given(st.lists(st.lists(st.sampled_from(WORDS[1:]), max_size=70), min_size=1, max_size=12))
def test_a_batch_scores_each_row_as_if_alone(scorer: Any, batch: list[list[str]]) -> None:
    texts = [" ".join(words) for words in batch]
    together = scorer.score(texts)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(together.outcome[row], scorer.score([text]).outcome[0], atol=1e-5)
        assert together.tokens[row].tolist() == [len(batch[row]), 0]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_any_text_scores_to_probabilities(scorer: Any, texts: list[str]) -> None:
    scores = scorer.score([text.encode("utf-8", "ignore").decode() for text in texts])
    np.testing.assert_allclose(scores.outcome.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(scores.task_type.sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(scores.dimensions).all()


def test_truncation_keeps_the_head_and_counts_the_rest(tmp_path: Path) -> None:
    write_tiny_version(tmp_path, max_tokens=8)
    scores = scoring.Scorer.load(tmp_path).score(["easy " * 8 + "hard " * 13])
    assert scores.tokens.tolist() == [[8, 13]]
    np.testing.assert_allclose(scores.outcome[0], expected_probabilities(["easy"])[0], atol=1e-5)


def test_a_text_of_megabytes_is_read_only_as_far_as_needed(scorer: Any) -> None:
    scores = scorer.score(["easy " * 1_000_000])
    seen, dropped = scores.tokens[0]
    assert seen == 512
    assert seen + dropped == pytest.approx(1_000_000, rel=0.01)


@given(st.lists(st.integers(0, 512), max_size=300))
def test_buckets_hold_every_row_once_and_waste_less_than_half(lengths: list[int]) -> None:
    buckets = scoring.length_buckets(np.asarray(lengths, np.int32))
    assert sorted(row for rows in buckets for row in rows) == list(range(len(lengths)))
    for rows in buckets:
        assert 0 < len(rows) <= scoring.ROWS_PER_RUN
        longest, shortest = max(lengths[row] for row in rows), min(lengths[row] for row in rows)
        assert longest <= scoring.BUCKETS[0] or longest < 2 * shortest


def test_padding_is_counted(scorer: Any) -> None:
    assert scorer.score(["easy", "easy hard why", "easy " * 100]).padded_tokens == 2


def test_an_absent_head_is_nan_and_complexity_has_no_label(tmp_path: Path) -> None:
    write_tiny_version(tmp_path, heads=("outcomes", "task_types"))
    scores = scoring.Scorer.load(tmp_path).score(["easy", "hard"])
    assert np.isnan(scores.dimensions).all()
    assert np.isfinite(scores.outcome).all()
    assert [scoring.COMPLEXITY[index] for index in scores.complexity.argmax(axis=1)] == ["No-Label-Reason"] * 2
    assert scores.complexity.sum() == 2


def test_complexity_is_the_dimensions_in_nvidias_order(scorer: Any) -> None:
    scores = scorer.score(["why hard code"])
    named = dict(zip(scoring.LABELS["dimensions"], scores.dimensions[0], strict=True))
    complexity = dict(zip(scoring.COMPLEXITY, scores.complexity[0], strict=True))
    assert complexity == {
        "Creativity": named["creativity"],
        "Reasoning": named["reasoning"],
        "Contextual-Knowledge": named["contextual_knowledge"],
        "Few-Shot": named["few_shots"],
        "Domain-Knowledge": named["domain_knowledge"],
        "No-Label-Reason": 0,
        "Constraint": named["constraints"],
    }


def test_the_poison_word_really_raises(scorer: Any) -> None:
    with pytest.raises(Exception, match=r"out of .*bounds"):
        scorer.score(["easy", POISON])
    assert np.isfinite(scorer.score(["easy"]).outcome).all()


@pytest.mark.parametrize("name", scoring.FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_tiny_version(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(scoring.VersionError, match=rf"^{name} missing in .*: export"):
        scoring.Scorer.load(tmp_path)


@pytest.mark.parametrize("name", scoring.FILES)
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    write_tiny_version(tmp_path)
    (tmp_path / name).write_bytes(b"{ not what it says")
    with pytest.raises(scoring.VersionError, match=name):
        scoring.Scorer.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format is 2, this code reads 1"),
        ("outcomes", ["yes", "no"], r"outcomes is \['yes', 'no'\], allowed are null"),
        ("task_types", ["billing"], r"task_types is \['billing'\], allowed are null .* two or more different names"),
        ("task_types", ["billing", "billing"], "two or more different names"),
        ("task_types", ["billing", "lost\ncard"], "printable ASCII"),
        ("task_types", {"0": "billing"}, "allowed are null"),
        ("dimensions", ["creativity"], "allowed are null"),
        ("encoder", {"kind": "recurrent"}, "encoder.kind is 'recurrent', allowed are static, transformer, deberta"),
        ("encoder", "static", "encoder.kind is None"),
        ("max_tokens", 0, "max_tokens is 0, allowed are 8 to 8192"),
        ("max_tokens", "512", "max_tokens is '512'"),
        ("calibration", None, "calibration is None, allowed is"),
        ("calibration", {"temperature": 0, "bias": [0, 0, 0, 0]}, "temperature.* above 0"),
        ("calibration", {"temperature": 1, "bias": [0, 0, 0]}, "bias.* four finite numbers"),
        ("calibration", {"temperature": 1, "bias": [0, 0, 0, float("nan")]}, "four finite numbers"),
    ],
)
def test_a_bad_spec_names_key_value_and_what_is_allowed(key: str, value: Any, message: str) -> None:
    with pytest.raises(scoring.VersionError, match=message):
        scoring.parse_spec({**tiny_spec(), key: value})


def test_a_version_may_have_task_types_of_its_own(tmp_path: Path) -> None:
    spec = write_tiny_version(tmp_path)
    own = {**spec, "task_types": [f"intent_{number}" for number in range(12)]}
    (tmp_path / "spec.json").write_text(json.dumps(own))
    scorer = scoring.Scorer.load(tmp_path)
    assert scorer.spec.labels["task_types"] == tuple(own["task_types"])
    np.testing.assert_allclose(scorer.score(["code"]).task_type[0], expected_probabilities(["code"])[1], atol=1e-5)

    (tmp_path / "spec.json").write_text(json.dumps({**own, "task_types": ["billing", "card_lost", "other"]}))
    with pytest.raises(scoring.VersionError, match=r"declares task_types, but .* no output task_logits of width 3"):
        scoring.Scorer.load(tmp_path)


def test_an_unscored_row_is_as_wide_as_its_version_s_labels() -> None:
    spec = scoring.parse_spec({**tiny_spec(), "task_types": ["billing", "card_lost", "other"], "dimensions": None})
    unscored = scoring.Scores.unscored(spec)
    assert (unscored.task_type.shape, unscored.dimensions.shape) == ((1, 3), (1, 6))
    assert np.isnan(unscored.task_type).all()


def test_each_row_goes_to_the_session_of_its_length(version: Path) -> None:
    ran: list[int] = []

    class Recorded:
        def __init__(self, longest: int) -> None:
            self.longest = longest

        def get_outputs(self) -> Any:
            return session.get_outputs()

        def run(self, outputs: Any, inputs: Any) -> Any:
            assert inputs["input_ids"].shape[1] <= self.longest
            ran.append(self.longest)
            return session.run(outputs, inputs)

    session = scoring.open_session(version / "model.onnx", ["CPUExecutionProvider"])
    sessions = [(longest, Recorded(longest)) for longest in (16, 64, 512)]
    scores = scoring.Scorer.load(version, sessions=sessions).score(["easy", "easy " * 17, "hard " * 300, "easy " * 64])
    assert ran == [16, 64, 64, 512]
    np.testing.assert_allclose(scores.outcome[2], expected_probabilities(["hard"])[0], atol=1e-5)


def test_a_spec_that_is_no_object() -> None:
    with pytest.raises(scoring.VersionError, match="expected one object, found list"):
        scoring.parse_spec([])


def test_a_head_that_the_graph_lacks_is_refused(tmp_path: Path) -> None:
    write_tiny_version(tmp_path, heads=("outcomes",))
    (tmp_path / "spec.json").write_text(json.dumps(tiny_spec(tuple(WIDTHS))))
    with pytest.raises(scoring.VersionError, match=r"declares task_types, but .* no output task_logits"):
        scoring.Scorer.load(tmp_path)
