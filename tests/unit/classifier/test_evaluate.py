import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from classifier.__main__ import SERVED
from classifier.errors import DataError
from classifier.evaluate import evaluate, table
from classifier.render_config import all_configs, serves, spec_line
from classifier.scored import LENGTH, scored_by_version, scored_file

REPOSITORY = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


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


def quiet(_: str) -> None:
    pass


def test_the_table_has_every_baseline_and_ranks_a_telling_score_first(tmp_path: Path) -> None:
    routing = evaluate(scored_file(scores(tmp_path / "s.jsonl"), quiet), rounds=50)["routing"]
    names = [line.split("  ")[0] for line in table(routing).splitlines()[1:]]
    assert names == ["always cheap", "always strong", "random", "prompt length", "score"]
    routers = routing["routers"]
    assert routers["random"]["apgr"]["value"] == pytest.approx(0.5, abs=0.1)
    assert routers["score"]["apgr"]["low"] > routers["prompt length"]["apgr"]["high"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"score": "high", "weak_score": 0, "strong_score": 1}', r"line 1: `score` is 'high'; allowed is a finite"),
        ('{"score": NaN, "weak_score": 0, "strong_score": 1}', r"line 1: `score` is nan; allowed is a finite number"),
        ('{"score": 1, "weak_score": 0, "strong_score": NaN}', r"`strong_score` is nan"),
        ('{"score": 1, "weak_score": 0}', r"there without `strong_score`"),
        ('{"score": 1, "weak_score": 0, "strong_score": 1, "tokens": 5}', r"`tokens` is int"),
        ('{"weak_score": 0, "strong_score": 1}', r"neither `score` nor `need_strong` is there"),
        ('{"score": 1}', r"nothing to judge by"),
    ],
)
def test_a_file_of_scores_says_what_is_wrong(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(row)
    with pytest.raises(DataError, match=message):
        evaluate(scored_file(path, quiet))


def test_one_class_of_outcomes_is_judged_as_undefined(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join([json.dumps({"score": 0.5, "weak_score": 1, "strong_score": 1})] * 30))
    routing = evaluate(scored_file(path, quiet), rounds=10)["routing"]
    assert routing["routers"]["score"]["apgr"] == {"value": None, "low": None, "high": None}
    assert "score          -" in table(routing)


def test_a_version_is_judged_with_its_own_code(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"prompt": prompt, "weak_score": 0, "strong_score": 1} for prompt in ("hi", "why " * 900)]
    path.write_text("\n".join(map(json.dumps, rows)))
    judged = scored_by_version(SERVED, [path], quiet)
    assert judged.scores[LENGTH].tolist() == [3, 902]  # what is truncated counts
    assert judged.p_weak is not None
    assert ((judged.p_weak > 0) & (judged.p_weak < 1)).all()


def test_the_report_holds_tables_pictures_and_the_same_figures(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rng = np.random.default_rng(1)
    rows = [
        {
            "prompt": f"prompt {n} " + "why " * int(rng.integers(1, 40)),
            "source": f"source {n % 2}",
            "task_type": "Open QA" if n % 3 else "Rewrite",
            "weak_score": float(rng.random() > 0.5),
            "strong_score": 1.0,
            "tokens": {"weak_out": 10, "strong_out": 20},
        }
        for n in range(60)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    prices = ["--price-weak", "0.1/0.4", "--price-strong", "2/8"]
    done = run(
        *("evaluate", "--model", str(SERVED), "--data", str(path), "--bootstrap", "20"),
        *(*prices, "--report", str(tmp_path / "report")),
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.md").read_text()
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert document["routing"]["routers"]["need_strong"]["apgr"]["value"] is not None
    apgr = document["routing"]["routers"]["need_strong"]["apgr"]
    assert f"{apgr['value']:.3f} [{apgr['low']:.3f}, {apgr['high']:.3f}]" in page
    assert document["routing"]["always_strong"]["dollars_per_1k"] == pytest.approx(
        np.mean([len(str(row["prompt"])) / 4 * 2 + 20 * 8 for row in rows]) / 1e6 * 1e3, abs=1e-6
    )
    assert sum(sum(row.values()) for row in document["task"]["confusion"].values()) == 60
    for heading in ("## By source", "| source 1 | 30 |", "| Rewrite |", "dollars a thousand for 95% quality"):
        assert heading in page
    for name in ("curve.svg", "reliability.svg"):
        picture = ElementTree.fromstring((tmp_path / "report" / name).read_text())
        assert f"({name})" in page
        numbers = [
            float(number) for path in picture.iter(SVG + "path") for number in re.findall(r"[\d.]+", path.attrib["d"])
        ]
        assert numbers
        assert all(0 <= number <= 640 for number in numbers)


VERSIONS = sorted(path for path in SERVED.parent.iterdir() if path.name.isdigit())


def test_the_committed_weights_are_small() -> None:
    allowed = {"static": 16_000_000, "transformer": 48_000_000}
    for version in VERSIONS:
        kind = json.loads((version / "spec.json").read_text())["encoder"]["kind"]
        assert (version / "model.onnx").stat().st_size <= allowed[kind], version


def test_every_committed_version_has_the_same_code() -> None:
    code = {file.name: file.read_bytes() for file in SERVED.glob("*.py")}
    for version in VERSIONS:
        assert {file.name: file.read_bytes() for file in version.glob("*.py")} == code, version


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
    assert set(json.loads(done.stdout.splitlines()[-1])) == {"rows", "random", "prompt length", "score"}


def test_on_a_terminal_there_is_the_table_alone(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    path = scores(tmp_path / "s.jsonl")
    command = [sys.executable, "-m", "classifier", "evaluate", "--scores", str(path), "--bootstrap", "20"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(theirs)
    seen = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # a pty ends with an error
        while part := terminal.read(4096):
            seen += part
    assert done.returncode == 0, done.stderr
    assert b"always strong" in seen
    assert b"{" not in seen


@pytest.mark.parametrize("command", ["train", "export", "predict", "evaluate", "calibrate", "render-config"])
def test_help_works_without_torch(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"classifier {command}" in done.stdout


def test_wrong_input_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = run("evaluate", "--scores", str(tmp_path / "absent.jsonl"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
