import json
from pathlib import Path

import pytest

from classifier.convert import from_decision_log, from_labels, from_preferences, from_routellm
from classifier.errors import DataError
from tests.unit.classifier.test_evaluate import run


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def quiet(_: str) -> None:
    pass


def test_logged_requests_get_their_grades_by_request_id(tmp_path: Path) -> None:
    old = lines(tmp_path / "d.jsonl.1", {"request_id": "a", "prompt": "Why?", "model": "cheap"})
    new = lines(tmp_path / "d.jsonl", {"request_id": "b", "prompt": "How?"}, {"request_id": "c", "prompt": "Who?"})
    grades = [{"request_id": name, "weak_score": 0, "strong_score": 0.5} for name in ("a", "c", "z")]
    said: list[str] = []
    rows = from_decision_log([old, new], lines(tmp_path / "g.jsonl", *grades), said.append)
    assert [(row["prompt"], row["weak_score"], row["strong_score"]) for row in rows] == [
        ("Why?", 0, 0.5),
        ("Who?", 0, 0.5),
    ]
    assert said == ["2 of 3 grades found their request"]


def test_grades_of_other_requests_are_a_mistake(tmp_path: Path) -> None:
    log = lines(tmp_path / "d.jsonl", {"request_id": "a", "prompt": "Why?"})
    grades = lines(tmp_path / "g.jsonl", {"request_id": "b", "weak_score": 0, "strong_score": 1})
    with pytest.raises(DataError, match=r"no request_id of .* is in the log"):
        from_decision_log([log], grades, quiet)


def test_a_benchmark_csv_is_read_with_its_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "mmlu.csv"
    path.write_text('prompt,org/weak,strong\n"Two\nlines, quoted",True,False\nNext,0.25,1\n')
    assert from_routellm(path, "org/weak", "strong", quiet) == [
        {"prompt": "Two\nlines, quoted", "weak_score": 1.0, "strong_score": 0.0, "source": "mmlu"},
        {"prompt": "Next", "weak_score": 0.25, "strong_score": 1.0, "source": "mmlu"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,a,b\nWhy?,maybe,1\n", "`a` is 'maybe'; allowed is True, False or a number from 0 to 1"),
        ("prompt,x,b\nWhy?,1,1\n", "`a` is no column; allowed is prompt, x, b"),
        ("prompt,a,b\n,1,1\n", "line 2: `prompt` is str"),
        ("prompt,a,b\n", "has no rows"),
    ],
)
def test_a_csv_that_is_not_as_expected_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        from_routellm(path, "a", "b", quiet)


VOTES = [
    {"model_a": "weak", "model_b": "strong", "winner": "model_b", "prompt": "1"},
    {"model_a": "strong", "model_b": "weak", "winner": "model_b", "conversation_a": [{"role": "user", "content": "2"}]},
    {"model_a": "strong", "model_b": "weak", "winner": "tie", "prompt": "3"},
    {"model_a": "weak", "model_b": "strong", "winner": "tie (bothbad)", "prompt": "4"},
    {"model_a": "weak", "model_b": "other", "winner": "tie", "prompt": "5"},
]


@pytest.mark.parametrize("as_list", [True, False])
def test_votes_become_outcomes_of_the_pair(as_list: bool, tmp_path: Path) -> None:
    if as_list:
        path = tmp_path / "arena.json"
        path.write_text(json.dumps(VOTES))
    else:
        path = lines(tmp_path / "arena.jsonl", *VOTES)
    rows = from_preferences(path, "weak", "strong", quiet)
    assert [(row["prompt"], row["weak_score"], row["strong_score"]) for row in rows] == [
        ("1", 0, 1),
        ("2", 1, 0),
        ("3", 1, 1),
        ("4", 0, 0),
    ]


def test_votes_between_other_models_name_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no vote between 'gpt' and 'strong'; it has other, strong, weak"):
        from_preferences(lines(tmp_path / "v.jsonl", *VOTES), "gpt", "strong", quiet)


def test_the_command_writes_rows_that_can_be_judged(tmp_path: Path) -> None:
    path = lines(tmp_path / "v.jsonl", *VOTES)
    out = tmp_path / "rows.jsonl"
    done = run(
        "import",
        "--format",
        "preferences",
        "--input",
        str(path),
        "--output",
        str(out),
        "--weak",
        "weak",
        "--strong",
        "strong",
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["source"] for line in out.read_text().splitlines()] == ["v"] * 4
    refused = run("import", "--format", "decision-log", "--input", str(path), "--output", str(out))
    assert refused.returncode == 1
    assert "needs --grades" in refused.stderr


def test_a_csv_of_labels_becomes_rows_with_a_task_type(tmp_path: Path) -> None:
    table = tmp_path / "train.csv"
    table.write_text('text,category\n"Where is\nmy card?",card_arrival\nWhich rate?,exchange_rate\n')
    rows = from_labels(table, "text", "category", quiet)
    assert rows == [
        {"prompt": "Where is\nmy card?", "task_type": "card_arrival", "source": "train"},
        {"prompt": "Which rate?", "task_type": "exchange_rate", "source": "train"},
    ]
    with pytest.raises(DataError, match=r"`?label`? is no column.*text, category"):
        from_labels(table, "text", "label", quiet)
