"""What people give the command line by mistake ends in one line that says what is wrong, and spoils nothing."""

import csv
import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from classifier.errors import DataError
from classifier.files import whole
from classifier.labelled import read_labelled

ROOT = Path(__file__).parents[3]
GOOD = {"prompt": "What is two and two?", "weak_score": 1, "strong_score": 1}


def classifier(*arguments: str | Path, most_bytes: int = 1 << 30) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, which may write files of at most so many bytes."""
    return subprocess.run(
        [sys.executable, "-m", "classifier", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes)),
    )


def table(path: Path, rows: int, encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream).writerows([("text", "category"), *((f"question {n}", "a") for n in range(rows))])
    return path


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("[" * 200_000, "not JSON"),
        (json.dumps({**GOOD, "prompt": "\ud800"}), "half of a surrogate pair"),
        (json.dumps({**GOOD, "weak_score": float("nan")}), "`weak_score` is nan"),
    ],
)
def test_a_bad_row_is_left_out_and_shown_with_its_line(tmp_path: Path, bad: str, reason: str) -> None:
    file, told = tmp_path / "rows.jsonl", list[str]()
    file.write_text("\n".join([bad, *[json.dumps(GOOD)] * 30]), encoding="utf-8-sig")
    assert len(read_labelled([file], told.append)) == 30
    assert "1 of 31 rows are bad; the first: " in told[0]
    assert "rows.jsonl, line 1: " in told[0]
    assert reason in told[0]


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    packed = bytearray(gzip.compress("\n".join(json.dumps({**GOOD, "x": n**9}) for n in range(500)).encode()))
    packed[2000:2010] = b"\xff" * 10
    file.write_bytes(packed)
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz cannot be read"):
        read_labelled([file], print)


def test_a_spreadsheets_csv_is_read(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", rows=3, encoding="utf-8-sig")
    done = classifier("import", "--format", "labels", "--input", source, "--output", tmp_path / "o.jsonl")
    assert (done.returncode, done.stdout) == (0, f"3 rows written to {tmp_path / 'o.jsonl'}\n")


def test_a_csv_with_other_columns_names_those_that_are_there(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", rows=30)
    with source.open("a") as stream:
        stream.write("more,cells,than the header\n")
    names = ("--weak", "mixtral", "--strong", "gpt-4")
    done = classifier("import", "--format", "routellm", *names, "--input", source, "--output", tmp_path / "o.jsonl")
    assert done.returncode == 1
    assert "31 of 31 rows are bad" in done.stderr
    assert "line 2: `mixtral` is no column; allowed is text, category" in done.stderr


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    source, target = table(tmp_path / "t.csv", rows=1000), tmp_path / "o.jsonl"
    target.write_text("before")
    arguments = ("import", "--format", "labels", "--input", source, "--output", target)
    done = classifier(*arguments, most_bytes=10_000)
    assert (done.returncode, done.stderr) == (1, f"error: {target}: File too large\n")
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.jsonl", "t.csv"]


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    source, target = table(tmp_path / "t.csv", rows=3), tmp_path / "nowhere" / "o.jsonl"
    done = classifier("import", "--format", "labels", "--input", source, "--output", target)
    assert (done.returncode, done.stderr) == (1, f"error: {target}: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--scores", "x", "--bootstrap", "0"), "--bootstrap: '0' is not a whole number, 1 or more"),
        (("train", "--out", "x", "--pair-average", "3"), "--pair-average: '3' is not a number, 0 to 1"),
        (("train", "--out", "x", "--batch", "0"), "--batch: '0' is not a whole number, 1 or more"),
        (("train", "--out", "x", "--learning-rate", "nan"), "--learning-rate: 'nan' is not a number, 0 or more"),
        (("train", "--out", "x", "--seed", "one"), "--seed: 'one' is not a whole number, 0 or more"),
    ],
)
def test_a_number_out_of_range_says_what_is_allowed(arguments: tuple[str, ...], message: str) -> None:
    done = classifier(*arguments)
    assert done.returncode == 2
    assert done.stderr.endswith(f"error: argument {message}\n")


def test_a_directory_joins_the_files_that_are_there(tmp_path: Path) -> None:
    target = tmp_path / "version"
    target.mkdir()
    (target / "code.py").write_text("stays")
    (target / "model").write_text("old")

    def write(*names: str) -> None:
        with whole(target) as unfinished:
            unfinished.mkdir()
            for name in names:
                (unfinished / name).write_text("new")

    with pytest.raises(FileNotFoundError):
        write("model", "nowhere/model")
    assert (target / "model").read_text() == "old"
    write("model")
    assert {file.name: file.read_text() for file in target.iterdir()} == {"code.py": "stays", "model": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["version"]
