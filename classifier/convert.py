"""Outcomes from elsewhere as rows to train and judge on: `prompt, weak_score, strong_score, source`, and more.

decision-log   the router's own log, joined by request_id with a file of grades
routellm       RouteLLM's benchmark CSVs: `prompt` and a column for each model, True, False or a score
labels         a CSV of texts and your own labels, such as banking77's: columns `text` and `category`
preferences    pairs as of Chatbot Arena: `model_a`, `model_b`, `winner`, and `prompt` or `conversation_a`
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from classifier.data import Line
from classifier.errors import DataError
from classifier.files import whole
from classifier.rows import json_lines, read_rows

FORMATS: Final = ("decision-log", "labels", "routellm", "preferences")

Progress = Callable[[str], None]
Row = dict[str, Any]

# What a vote says of (the answer of model_a, that of model_b).
_VOTES: Final[Mapping[str, tuple[float, float]]] = {
    "model_a": (1.0, 0.0),
    "model_b": (0.0, 1.0),
    "tie": (1.0, 1.0),
    "tie (bothbad)": (0.0, 0.0),
}
_TRUTH: Final = {"true": 1.0, "false": 0.0}


def from_decision_log(logs: Sequence[Path], grades: Path, progress: Progress) -> list[Row]:
    """The logs' requests that have a grade: `request_id, weak_score, strong_score` per line of `grades`."""
    graded = dict(read_rows(grades, _grade, progress))
    logged = [row for log in logs for row in read_rows(log, lambda line: _logged(line, graded), progress)]
    rows = [row for row in logged if row is not None]
    if not rows:
        raise DataError(f"no request_id of {grades} is in the log: are they of the same time?")
    progress(f"{len(rows):,} of {len(graded):,} grades found their request")
    return rows


def from_routellm(table: Path, weak: str, strong: str, progress: Progress) -> list[Row]:
    """Rows of a CSV; `weak` and `strong` name its columns."""
    return read_rows(table, lambda line: _benchmark(line, weak, strong), progress, lines=_csv_lines)


def from_labels(table: Path, text: str, label: str, progress: Progress) -> list[Row]:
    """Rows of a CSV with a task type each; `text` and `label` name its columns."""

    def row(line: Line) -> Row:
        absent = [column for column in (text, label) if column not in line.fields]
        if absent:
            raise line.wrong(absent[0], "no column", ", ".join(line.fields))
        return {"prompt": line.text(text), "task_type": line.text(label), "source": table.stem}

    return read_rows(table, row, progress, lines=_csv_lines)


def from_preferences(votes: Path, weak: str, strong: str, progress: Progress) -> list[Row]:
    """Votes between `weak` and `strong`, from JSON lines or one JSON list; votes between other models are left out."""
    found = read_rows(votes, lambda line: _vote(line, weak, strong), progress, lines=_list_or_lines)
    rows = [row for row in found if row is not None]
    if not rows:
        seen = sorted({model for pair in read_rows(votes, _models, progress, lines=_list_or_lines) for model in pair})
        raise DataError(f"{votes} has no vote between {weak!r} and {strong!r}; it has {', '.join(seen[:20])}")
    progress(f"{len(rows):,} of {len(found):,} votes are between {weak} and {strong}")
    return rows


def write_rows(rows: list[Row], target: Path) -> None:
    """Write JSON lines, whole or not at all."""
    with whole(target) as unfinished:
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _grade(line: Line) -> tuple[str, tuple[float, float]]:
    return line.text("request_id"), (line.score("weak_score"), line.score("strong_score"))


def _logged(line: Line, graded: Mapping[str, tuple[float, float]]) -> Row | None:
    name, prompt = line.text("request_id"), line.text("prompt")
    if name not in graded:
        return None
    weak, strong = graded[name]
    return {"prompt": prompt, "weak_score": weak, "strong_score": strong, "source": "decision-log", "request_id": name}


def _benchmark(line: Line, weak: str, strong: str) -> Row:
    weak_score, strong_score = (_cell(line, column) for column in (weak, strong))
    prompt = line.text("prompt")
    return {"prompt": prompt, "weak_score": weak_score, "strong_score": strong_score, "source": line.path.stem}


def _cell(line: Line, column: str) -> float:
    if column not in line.fields:
        raise line.wrong(column, "no column", ", ".join(line.fields))
    text = str(line.fields[column]).strip().lower()
    try:
        score = _TRUTH[text] if text in _TRUTH else float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise line.wrong(column, repr(text[:20]), "True, False or a number from 0 to 1")
    return score


def _models(line: Line) -> tuple[str, str]:
    return line.text("model_a"), line.text("model_b")


def _vote(line: Line, weak: str, strong: str) -> Row | None:
    models = _models(line)
    winner = line.text("winner")
    if winner not in _VOTES:
        raise line.wrong("winner", repr(winner[:20]), ", ".join(_VOTES))
    prompt = _question(line)
    if {weak, strong} != set(models):
        return None
    scores = dict(zip(models, _VOTES[winner], strict=True))
    return {"prompt": prompt, "weak_score": scores[weak], "strong_score": scores[strong], "source": line.path.stem}


def _question(line: Line) -> str:
    """The first thing that the user said."""
    conversation = line.fields.get("conversation_a")
    if isinstance(conversation, list) and conversation and isinstance(conversation[0], dict):
        return Line(line.path, line.place, conversation[0]).text("content")
    return line.text("prompt")


def _csv_lines(path: Path) -> Iterator[Line | DataError]:
    if not path.is_file():
        raise DataError(f"{path} is no file: give a CSV with a header")
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets begin a CSV with a byte order mark
            reader = csv.DictReader(stream)
            for fields in reader:
                if None in fields:
                    yield DataError(f"{path}, line {reader.line_num}: it has more cells than the header")
                else:
                    yield Line(path, reader.line_num, dict(fields))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV of UTF-8 text: {error}") from None


def _list_or_lines(path: Path) -> Iterator[Line | DataError]:
    if path.is_file() and path.suffix == ".json":
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}") from None
        if isinstance(document, list):
            for number, fields in enumerate(document, start=1):
                yield Line(path, number, fields if isinstance(fields, dict) else {})
            return
    yield from json_lines(path)
