"""Labelled prompts to train on, from JSON lines, gzipped or not, one row per prompt.

A row has a `prompt` and teaches one head or several:

    weak_score, strong_score     how good a cheap and an expensive model's answers were, 0..1
    task_type                    one of the task types: NVIDIA's, or those of `train --task-types`
    dimensions                   an object with the six of DIMENSIONS, each 0..1; or the six keys in the row itself

and may have `source` (default: the file's name), `group` (rows of one origin, never split), `models` (model -> score
of every model that answered) and `noisy_label` (true: judged on, not learned from). Other keys are ignored.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from classifier.data import ROUTING_FILE, Line
from classifier.errors import DataError
from classifier.labels import DIMENSIONS, TASK_TYPES
from classifier.rows import read_rows

_NAME: Final = re.compile(r"[ -~]{1,64}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How good the answers to a prompt were, all 0..1."""

    weak: float
    strong: float
    models: Mapping[str, float] = field(default_factory=dict)
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and what it teaches; None where it says nothing."""

    prompt: str
    source: str
    outcome: Outcome | None = None
    task_type: str | None = None
    dimensions: tuple[float, ...] | None = None  # [6], in the order of DIMENSIONS
    group: str | None = None


def read_labelled(
    paths: Sequence[Path], progress: Callable[[str], None], task_types: Sequence[str] = TASK_TYPES
) -> list[Row]:
    """All good rows of the files, in order; a directory stands for its routing_train.jsonl.gz.

    Bad rows are counted and left out; see `rows.read_rows`.
    """
    files = [path / ROUTING_FILE if path.is_dir() else path for path in paths]
    return [row for path in files for row in read_rows(path, lambda line: _row(line, task_types), progress)]


def read_task_types(path: Path) -> tuple[str, ...]:
    """A JSON list of names, in the order in which the version will answer them; raises DataError."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; give a JSON list of names") from None
    named = isinstance(names, list) and all(isinstance(name, str) and _NAME.fullmatch(name) for name in names)
    if not named or not 2 <= len(names) == len(set(names)):
        raise DataError(
            f"{path} is not what names task types: a JSON list of two or more different names, each 1 to 64 printable "
            "ASCII characters"
        )
    return tuple(names)


def digest(rows: Sequence[Row]) -> str:
    """SHA-256 over prompts and labels in order: which data a version was trained on, without showing it."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(asdict(row), sort_keys=True).encode() + b"\n")
    return total.hexdigest()


def _row(line: Line, task_types: Sequence[str]) -> Row:
    row = Row(
        prompt=line.text("prompt"),
        source=line.text("source") if line.fields.get("source") is not None else line.path.name.partition(".")[0],
        outcome=_outcome(line),
        task_type=_task_type(line, task_types),
        dimensions=_dimensions(line),
        group=line.text("group") if line.fields.get("group") is not None else None,
    )
    if row.outcome is None and row.task_type is None and row.dimensions is None:
        raise DataError(
            f"{line.path}, line {line.place}: the row teaches nothing; it needs `weak_score` and `strong_score`, "
            "`task_type` or `dimensions`"
        )
    return row


def _outcome(line: Line) -> Outcome | None:
    if line.fields.get("weak_score") is None and line.fields.get("strong_score") is None:
        return None
    models = line.fields.get("models") or {}
    if not isinstance(models, dict):
        raise line.wrong("models", type(models).__name__, "an object of model -> score")
    scores = Line(line.path, line.place, models)
    return Outcome(
        weak=line.score("weak_score"),
        strong=line.score("strong_score"),
        models={model: scores.score(model) for model in models},
        noisy=bool(line.fields.get("noisy_label", False)),
    )


def _task_type(line: Line, task_types: Sequence[str]) -> str | None:
    value = line.fields.get("task_type")
    if value is not None and value not in task_types:
        raise line.wrong("task_type", repr(value), f"one of {', '.join(task_types)}")
    return value


def _dimensions(line: Line) -> tuple[float, ...] | None:
    found = line.fields.get("dimensions")
    if found is None:
        found = {name: line.fields[name] for name in DIMENSIONS if name in line.fields}
        if not found:
            return None
    if not isinstance(found, dict):
        raise line.wrong("dimensions", type(found).__name__, f"an object with {', '.join(DIMENSIONS)}")
    values = Line(line.path, line.place, found)
    return tuple(values.score(name) for name in DIMENSIONS)
