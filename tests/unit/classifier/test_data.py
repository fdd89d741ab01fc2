import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from classifier.data import digest, read_routing, read_tasks
from classifier.errors import DataError

ROW = {"source": "s", "prompt": "secret prompt", "weak_score": 0, "strong_score": 0.5, "models": {"m": 1.0}}


def write(path: Path, *rows: Any) -> Path:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_directory_stands_for_its_routing_file_and_gzip_is_read(tmp_path: Path) -> None:
    write(tmp_path / "routing_train.jsonl.gz", ROW, "\n", {**ROW, "noisy_label": True})
    rows = read_routing([tmp_path])
    assert [(row.weak_score, row.strong_score, row.noisy_label) for row in rows] == [(0, 0.5, False), (0, 0.5, True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weak_score": 1.5}, "`weak_score` is 1.5; allowed is a number from 0 to 1"),
        ({"weak_score": True}, "`weak_score` is True"),
        ({"strong_score": float("nan")}, "`strong_score` is nan"),
        ({"prompt": ""}, "`prompt` is str; allowed is a string that is not empty"),
        ({"models": [1]}, "`models` is list"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_line_and_no_prompt(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "rows.jsonl", ROW, {**ROW, **change})
    with pytest.raises(DataError) as caught:
        read_routing([path])
    assert message in str(caught.value)
    assert f"{path}, line 2" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_broken_json_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: not JSON"):
        read_routing([write(tmp_path / "rows.jsonl", "{\n")])
    with pytest.raises(DataError, match=r"expected an object, found list"):
        read_routing([write(tmp_path / "rows.jsonl", [1])])
    with pytest.raises(DataError, match=r"is no file"):
        read_routing([tmp_path / "absent.jsonl"])


def test_task_types_are_nvidias(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks.jsonl", {"prompt": "p", "task_type": "Open QA"}, {"prompt": "p", "task_type": "x"})
    with pytest.raises(DataError, match=r"line 2: `task_type` is 'x'; allowed is one of Brainstorming, "):
        read_tasks(path)


def test_the_digest_covers_labels_and_order(tmp_path: Path) -> None:
    first, second = read_routing([write(tmp_path / "a.jsonl", ROW, {**ROW, "weak_score": 1})])
    assert digest([first, second]) != digest([second, first])
    assert digest([first]) != digest([second])
    assert digest([first]) == digest(read_routing([write(tmp_path / "b.jsonl", ROW)]))
