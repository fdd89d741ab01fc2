import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from classifier.__main__ import SERVED
from classifier.data import RoutingRow
from classifier.errors import DataError, VersionError
from classifier.evaluate import judge_file, judge_version, table
from classifier.render_config import all_configs, serves, spec_line

REPOSITORY = Path(__file__).parents[3]


def scores(path: Path, rows: int = 400) -> Path:
    rng = np.random.default_rng(7)
    lines = []
    for hard in rng.random(rows):
        weak = float(rng.random() > hard)
        lines.append(
            json.dumps({"score": hard, "weak_score": weak, "strong_score": 1, "prompt": "x" * rng.integers(1, 9)})
        )
    path.write_text("\n".join(lines))
    return path


def test_the_table_has_every_baseline_and_ranks_a_telling_score_first(tmp_path: Path) -> None:
    text, figures = table(judge_file(scores(tmp_path / "s.jsonl")), rounds=50)
    names = [line.split("  ")[0] for line in text.splitlines()[1:]]
    assert names == ["always cheap", "always strong", "random", "prompt length", "score"]
    assert figures["random"]["apgr"]["value"] == pytest.approx(0.5, abs=0.1)
    assert figures["score"]["apgr"]["low"] > figures["prompt length"]["apgr"]["high"]


def test_a_file_of_scores_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"score": "high", "weak_score": 0, "strong_score": 1}))
    with pytest.raises(DataError, match=r"line 1: `score` is 'high'; allowed is a finite number"):
        judge_file(path)


def test_a_version_is_judged_with_its_own_code() -> None:
    rows = [RoutingRow("s", prompt, 0.0, 1.0, noisy_label=False, models={}) for prompt in ("hi", "", "why " * 900)]
    judged = judge_version(SERVED, rows, lambda _: None)
    assert judged.scores["prompt length"].tolist() == [3, 2, 902]  # what is truncated counts
    assert judged.p_weak is not None
    assert ((judged.p_weak > 0) & (judged.p_weak < 1)).all()


def test_a_directory_without_scoring_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VersionError, match=r"scoring\.py is missing"):
        judge_version(tmp_path, [], lambda _: None)


VERSIONS = sorted(path for path in SERVED.parent.iterdir() if path.name.isdigit())


def test_the_committed_weights_are_small() -> None:
    allowed = {"static": 16_000_000, "transformer": 48_000_000}
    for version in VERSIONS:
        kind = json.loads((version / "spec.json").read_text())["encoder"]["kind"]
        assert (version / "model.onnx").stat().st_size <= allowed[kind], version


def test_every_config_carries_the_spec_of_the_one_version_that_it_serves() -> None:
    for config in all_configs(SERVED.parent):
        [version] = [version for version in VERSIONS if serves(config, version.name)]
        line = spec_line(json.loads((version / "spec.json").read_text()))
        assert line in config.read_text(), f"{config}: `python -m classifier render-config --version {version}`"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "classifier", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_prints_the_table_and_one_json_document_last(tmp_path: Path) -> None:
    done = run("evaluate", "--scores", str(scores(tmp_path / "s.jsonl")), "--bootstrap", "20")
    assert done.returncode == 0, done.stderr
    assert "always strong" in done.stdout
    assert set(json.loads(done.stdout.splitlines()[-1])) == {"random", "prompt length", "score"}


@pytest.mark.parametrize("command", ["train", "export", "evaluate", "render-config"])
def test_help_works_without_torch(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"classifier {command}" in done.stdout


def test_wrong_input_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = run("evaluate", "--scores", str(tmp_path / "absent.jsonl"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
