import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from classifier.errors import DataError
from classifier.labelled import Outcome, digest, read_labelled, read_task_types
from classifier.labels import DIMENSIONS

ROW = {"source": "s", "prompt": "secret prompt", "weak_score": 0, "strong_score": 0.5, "models": {"m": 1.0}}


def write(path: Path, *rows: Any) -> Path:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def quiet(_: str) -> None:
    pass


def only_error(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_labelled([path], quiet)
    return str(caught.value)


def test_a_directory_stands_for_its_routing_file_and_gzip_is_read(tmp_path: Path) -> None:
    write(tmp_path / "routing_train.jsonl.gz", ROW, "\n", {**ROW, "noisy_label": True})
    outcomes = [row.outcome for row in read_labelled([tmp_path], quiet)]
    assert outcomes == [Outcome(0, 0.5, {"m": 1.0}), Outcome(0, 0.5, {"m": 1.0}, noisy=True)]


def test_a_row_may_teach_any_head_and_its_source_is_by_default_the_file(tmp_path: Path) -> None:
    six = dict.fromkeys(DIMENSIONS, 0.33)
    path = write(
        tmp_path / "mine.jsonl",
        {"prompt": "p", "task_type": "Open QA", "group": "g"},
        {"prompt": "p", "dimensions": six},
        {"prompt": "p", **six},
        {"prompt": "p", "weak_score": 1, "strong_score": 1, "source": "s"},
    )
    task, nested, flat, outcome = read_labelled([path], quiet)
    assert (task.source, task.task_type, task.group, task.outcome) == ("mine", "Open QA", "g", None)
    assert nested.dimensions == flat.dimensions == (0.33,) * 6
    assert (outcome.source, outcome.outcome) == ("s", Outcome(1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weak_score": 1.5}, "`weak_score` is 1.5; allowed is a number from 0 to 1"),
        ({"weak_score": True}, "`weak_score` is True"),
        ({"strong_score": float("nan")}, "`strong_score` is nan"),
        ({"strong_score": None}, "`strong_score` is None"),
        ({"prompt": ""}, "`prompt` is str; allowed is a string that is not empty"),
        ({"models": [1]}, "`models` is list"),
        ({"models": {"m": "good"}}, "`m` is 'good'"),
        ({"task_type": "x"}, "`task_type` is 'x'; allowed is one of Brainstorming, "),
        ({"dimensions": {"creativity": 0}}, "`reasoning` is None; allowed is a finite number"),
        ({"dimensions": 3}, "`dimensions` is int; allowed is an object with creativity, "),
        ({"weak_score": None, "strong_score": None}, "the row teaches nothing"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_line_and_no_prompt(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "rows.jsonl", ROW, {**ROW, **change})
    error = only_error(path)
    assert message in error
    assert f"{path}, line 2" in error
    assert "secret" not in error


def test_a_few_bad_rows_are_left_out_and_the_first_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[ROW] * 97, "{\n", [1], {**ROW, "weak_score": 2})
    reports: list[str] = []
    assert len(read_labelled([path], reports.append)) == 97
    (report,) = reports
    assert report.startswith(f"3 of 100 rows are bad; the first: {path}, line 98: not JSON")


def test_more_than_five_percent_of_bad_rows_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[ROW] * 94, *["{\n"] * 6)
    assert "6 of 100 rows" in only_error(path)
    assert "Allowed are 5%: correct the file" in only_error(path)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    assert "is no file" in only_error(tmp_path / "absent.jsonl")
    assert "has no rows" in only_error(write(tmp_path / "empty.jsonl", "\n"))


def test_the_digest_covers_labels_and_order(tmp_path: Path) -> None:
    first, second = read_labelled([write(tmp_path / "a.jsonl", ROW, {**ROW, "weak_score": 1})], quiet)
    assert digest([first, second]) != digest([second, first])
    assert digest([first]) != digest([second])
    assert digest([first]) == digest(read_labelled([write(tmp_path / "b.jsonl", ROW)], quiet))


def test_task_types_of_one_s_own_take_the_place_of_nvidia_s(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", {"prompt": "Where is it?", "task_type": "card_arrival"})
    [row] = read_labelled([path], quiet, ("card_arrival", "exchange_rate"))
    assert row.task_type == "card_arrival"
    assert "card_arrival" in only_error(path)
    assert "one of Brainstorming" in only_error(path)


@pytest.mark.parametrize(
    "text", ["", "{}", '["one"]', '["same", "same"]', '["a", 5]', '["a", ""]', '["a", "line\\nbreak"]', '["a", "é"]']
)
def test_what_names_no_task_types_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "categories.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"categories.json .* list of"):
        read_task_types(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_task_types(tmp_path / "none.json")
