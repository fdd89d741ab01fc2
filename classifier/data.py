"""Read training data: JSON lines, gzipped or not.

Routing rows: `source, prompt, weak_score, strong_score` (0..1), optional `noisy_label` and `models`
(model -> score). Task rows: `prompt, task_type`. Unknown keys are ignored.
"""

import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from classifier.errors import DataError
from classifier.labels import TASK_TYPES

ROUTING_FILE = "routing_train.jsonl.gz"


@dataclass(frozen=True, slots=True)
class RoutingRow:
    """A prompt, answered by a cheap and an expensive model and graded."""

    source: str
    prompt: str
    weak_score: float
    strong_score: float
    noisy_label: bool
    models: dict[str, float]


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A prompt and its task type, one of TASK_TYPES."""

    prompt: str
    task_type: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, with readers that name the place when they refuse a value."""

    path: Path
    place: int
    fields: dict[str, Any]

    def text(self, key: str) -> str:
        """A string that is not empty."""
        value = self.fields.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, type(value).__name__, "a string that is not empty")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, repr(value), "a finite number")
        return float(value)

    def score(self, key: str) -> float:
        """A number from 0 to 1."""
        value = self.number(key)
        if not 0 <= value <= 1:
            raise self.wrong(key, repr(value), "a number from 0 to 1")
        return value

    def wrong(self, key: str, seen: str, allowed: str) -> DataError:
        """The error to raise for `key`."""
        return DataError(f"{self.path}, line {self.place}: `{key}` is {seen}; allowed is {allowed}")


def read_routing(paths: Sequence[Path]) -> list[RoutingRow]:
    """All rows of the files, in order; a directory stands for its routing_train.jsonl.gz."""
    files = [path / ROUTING_FILE if path.is_dir() else path for path in paths]
    return [_routing_row(line) for path in files for line in json_lines(path)]


def read_tasks(path: Path) -> list[TaskRow]:
    """All rows of the file, in order."""
    return [_task_row(line) for line in json_lines(path)]


def json_lines(path: Path) -> Iterator[Line]:
    """The objects of a file of JSON lines, gzipped or not; empty lines are skipped."""
    if not path.is_file():
        raise DataError(f"{path} is no file: give JSON lines, gzipped or not, or a directory with {ROUTING_FILE}")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(fields, dict):
                raise DataError(f"{path}, line {number}: expected an object, found {type(fields).__name__}")
            yield Line(path, number, fields)


def digest(rows: Sequence[RoutingRow | TaskRow]) -> str:
    """SHA-256 over prompts and labels in order: which data a version was trained on, without showing it."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(asdict(row), sort_keys=True).encode() + b"\n")
    return total.hexdigest()


def _routing_row(line: Line) -> RoutingRow:
    models = line.fields.get("models") or {}
    if not isinstance(models, dict):
        raise line.wrong("models", type(models).__name__, "an object of model -> score")
    return RoutingRow(
        source=line.text("source"),
        prompt=line.text("prompt"),
        weak_score=line.score("weak_score"),
        strong_score=line.score("strong_score"),
        noisy_label=bool(line.fields.get("noisy_label", False)),
        models=models,
    )


def _task_row(line: Line) -> TaskRow:
    task_type = line.text("task_type")
    if task_type not in TASK_TYPES:
        raise line.wrong("task_type", repr(task_type), f"one of {', '.join(TASK_TYPES)}")
    return TaskRow(prompt=line.text("prompt"), task_type=task_type)
