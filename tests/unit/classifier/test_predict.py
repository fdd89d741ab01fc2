import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from classifier.errors import DataError, VersionError
from classifier.predict import predict, predict_file
from tests.tiny_classifier import SCORING, expected_probabilities, write_tiny_version

REPOSITORY = Path(__file__).parents[3]
PROMPTS = ["easy poem .", "hard why", "what"]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("version")
    write_tiny_version(directory)
    (directory / "scoring.py").write_bytes(SCORING.read_bytes())
    return directory


def written(path: Path, rows: list[object]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def quiet(_: str) -> None:
    pass


def test_every_row_gets_the_scores_that_triton_would_give(version: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl", [{"prompt": prompt, "mine": n} for n, prompt in enumerate(PROMPTS)])
    assert predict_file(version, source, tmp_path / "y.jsonl", quiet) == 3
    rows = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["mine"]) for row in rows] == list(zip(PROMPTS, range(3), strict=True))
    for row, prompt in zip(rows, PROMPTS, strict=True):
        (both, only_strong, only_weak, _), task, dimensions = expected_probabilities(prompt.split())
        assert row["p_weak"] == pytest.approx(both + only_weak, abs=1e-5)
        assert row["p_strong"] == pytest.approx(both + only_strong, abs=1e-5)
        assert row["gain"] == pytest.approx(only_strong - only_weak, abs=1e-5)
        assert row["need_strong"] == pytest.approx(0.75 * row["gain"] + 0.25 * (1 - row["p_weak"]), abs=1e-5)
        assert row["task_type"] == predict(version, [prompt], quiet).task_types[int(task.argmax())]
        assert list(row["dimensions"].values()) == pytest.approx(dimensions.tolist(), abs=1e-5)
        assert row["length"] == len(prompt.split())


def test_a_label_that_was_there_is_kept_beside_the_prediction(version: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl", [{"prompt": "easy", "task_type": "Rewrite"}])
    predict_file(version, source, tmp_path / "y.jsonl", quiet)
    row = json.loads((tmp_path / "y.jsonl").read_text())
    assert row["given_task_type"] == "Rewrite"
    assert row["task_type"] != "Rewrite"


def test_a_head_that_the_version_lacks_is_null(tmp_path: Path) -> None:
    write_tiny_version(tmp_path, heads=["task_types"])
    (tmp_path / "scoring.py").write_bytes(SCORING.read_bytes())
    found = predict(tmp_path, ["easy"], quiet).described(0)
    assert found["task_type"] is not None
    assert {name for name, value in found.items() if value is None} == {
        *("p_weak", "p_strong", "gain", "need_strong", "dimensions")
    }


def test_a_prompt_of_a_megabyte_is_scored(version: Path) -> None:
    found = predict(version, ["hard " * 210_000, "easy"], quiet)
    assert np.isfinite(found.outcome).all()
    assert found.tokens[0] > 200_000


def test_a_few_bad_rows_are_left_out_and_the_first_is_shown(version: Path, tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": "easy"}] * 50
    rows[20], rows[30] = {"text": "secret"}, "{"
    said: list[str] = []
    assert predict_file(version, written(tmp_path / "x.jsonl", rows), tmp_path / "y.jsonl", said.append) == 48
    assert "2 of 50 rows are bad; the first:" in said[0]
    assert "line 21: `prompt` is NoneType; allowed is a string that is not empty" in said[0]
    assert "secret" not in said[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "easy"}] * 9 + [{}], r"1 of 10 rows are bad.*Allowed are 5%"),
        ([], "has no rows"),
        ([{"prompt": "\ud800"}], "half of a surrogate pair"),
        (["[1]"], "expected an object, found list"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_and_nothing_written(
    rows: list[object], message: str, version: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        predict_file(version, written(tmp_path / "x.jsonl", rows), tmp_path / "y.jsonl", quiet)
    assert not (tmp_path / "y.jsonl").exists()


def test_a_truncated_archive_is_one_message(version: Path, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"prompt": "easy " * 999}).encode())[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        predict_file(version, path, tmp_path / "y.jsonl", quiet)


def test_truncated_weights_are_one_message(version: Path, tmp_path: Path) -> None:
    for file in version.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.onnx").write_bytes((version / "model.onnx").read_bytes()[:100])
    with pytest.raises(VersionError, match=r"model\.onnx cannot be loaded"):
        predict(tmp_path, ["easy"], quiet)


def test_the_command_writes_the_file(version: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl", [{"prompt": "easy"}])
    command = [sys.executable, "-m", "classifier", "predict", "--model", str(version)]
    done = subprocess.run(
        [*command, "--input", str(source), "--output", str(tmp_path / "y.jsonl")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "y.jsonl").read_text())["length"] == 1
