"""Offline prediction with a version's own code: the `scoring.py` that Triton runs, loaded from its directory."""

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from classifier.data import Line
from classifier.errors import DataError, VersionError
from classifier.files import whole
from classifier.metrics import Floats, need_strong
from classifier.rows import read_rows

ROWS_PER_CALL: Final = 256
DECIMALS: Final = 6
ADDED: Final = ("p_weak", "p_strong", "gain", "need_strong", "task_type", "dimensions", "length")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a version says of n prompts. A head that it lacks is NaN, and its labels are empty."""

    outcome: Floats  # [n, 4] both, only_strong, only_weak, neither
    task_type: Floats  # [n, task types]
    dimensions: Floats  # [n, dimensions]
    tokens: Floats  # [n] length, what was truncated included
    task_types: tuple[str, ...]
    dimension_names: tuple[str, ...]

    def described(self, row: int) -> dict[str, Any]:
        """One prompt's scores by the names of ADDED; null for a head that the version lacks."""
        both, only_strong, only_weak, _ = self.outcome[row].tolist()
        p_weak, p_strong = both + only_weak, both + only_strong
        need = float(need_strong(self.outcome[row]))
        scores = {"p_weak": p_weak, "p_strong": p_strong, "gain": p_strong - p_weak, "need_strong": need}
        dimensions = dict(zip(self.dimension_names, self.dimensions[row].round(DECIMALS).tolist(), strict=False))
        return {
            **{name: None if np.isnan(value) else round(value, DECIMALS) for name, value in scores.items()},
            "task_type": self.task_types[int(self.task_type[row].argmax())] if self.task_types else None,
            "dimensions": dimensions or None,
            "length": int(self.tokens[row]),
        }


def predict(version: Path, prompts: Sequence[str], progress: Progress) -> Predictions:
    """Score prompts as Triton would; raises VersionError when the directory cannot be served."""
    scoring: Any = load_code(version, "scoring")
    try:
        scorer = scoring.Scorer.load(version)
    except scoring.VersionError as error:
        raise VersionError(str(error)) from None
    spec = json.loads((version / "spec.json").read_text(encoding="utf-8"))
    parts = []
    for start in range(0, len(prompts), ROWS_PER_CALL):
        try:
            parts.append(scorer.score(prompts[start : start + ROWS_PER_CALL]))
        except Exception as error:  # ONNX Runtime's share no public base; a message could quote nothing but shapes
            raise VersionError(
                f"{version}: the model fails on a prompt of rows {start + 1:,} to {start + ROWS_PER_CALL:,} "
                f"({type(error).__name__}): do tokenizer.json and model.onnx belong together?"
            ) from error
        if (start // ROWS_PER_CALL) % 20 == 19:
            progress(f"scored {start + ROWS_PER_CALL:,} of {len(prompts):,} prompts")
    scores = scoring.Scores.joined(parts)
    return Predictions(
        outcome=scores.outcome.astype(np.float64),
        task_type=scores.task_type.astype(np.float64),
        dimensions=scores.dimensions.astype(np.float64),
        tokens=scores.tokens.sum(axis=1).astype(np.float64),
        task_types=tuple(spec["task_types"] or ()),
        dimension_names=tuple(spec["dimensions"] or ()),
    )


def predict_file(version: Path, source: Path, target: Path, progress: Progress) -> int:
    """Write `source`'s rows to `target` with ADDED in each; returns how many."""
    if not target.parent.is_dir():
        raise DataError(f"{target.parent} is no directory: name a file in one that is there")
    rows = read_rows(source, with_prompt, progress)
    predictions = predict(version, [line.text("prompt") for line in rows], progress)
    with whole(target) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        for number, line in enumerate(rows):
            stream.write(json.dumps(described(line, predictions, number)) + "\n")
    return len(rows)


def load_code(version: Path, name: str) -> ModuleType:
    """A module of a version's own code, such as `scoring`."""
    path = version / f"{name}.py"
    if not path.is_file():
        raise VersionError(f"{path} is missing: a version brings its own code, see the served version")
    spec = importlib.util.spec_from_file_location(f"served_{name}", path)
    assert spec is not None  # noqa: S101  # the file exists and ends in .py
    assert spec.loader is not None  # noqa: S101  # likewise
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def with_prompt(line: Line) -> Line:
    """The line when it has a prompt that can be scored; raises DataError."""
    line.text("prompt")
    return line


def described(line: Line, predictions: Predictions, row: int) -> dict[str, Any]:
    """A line's fields with ADDED; a key of ADDED that it already has, such as a labelled task_type, gets "given_"."""
    given = {f"given_{key}" if key in ADDED else key: value for key, value in line.fields.items()}
    return {**given, **predictions.described(row)}
