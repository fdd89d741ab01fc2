"""Offline prediction with a version's own code: the `scoring.py` that Triton runs, loaded from its directory."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.errors import VersionError

ROWS_PER_CALL = 256


def predict(
    version: Path, prompts: Sequence[str], progress: Callable[[str], None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outcome probabilities [n, 4], and length in tokens [n], what was truncated included."""
    scorer: Any = _scoring(version).Scorer.load(version)
    outcome, tokens = [], []
    for start in range(0, len(prompts), ROWS_PER_CALL):
        scores = scorer.score(prompts[start : start + ROWS_PER_CALL])
        outcome.append(scores.outcome)
        tokens.append(scores.tokens.sum(axis=1))
        if (start // ROWS_PER_CALL) % 20 == 19:
            progress(f"scored {start + ROWS_PER_CALL:,} of {len(prompts):,} prompts")
    return np.concatenate(outcome).astype(np.float64), np.concatenate(tokens).astype(np.float64)


def _scoring(version: Path) -> ModuleType:
    path = version / "scoring.py"
    if not path.is_file():
        raise VersionError(f"{path} is missing: a version brings its own scoring code, see the served version")
    spec = importlib.util.spec_from_file_location("served_scoring", path)
    assert spec is not None  # noqa: S101  # the file exists and ends in .py
    assert spec.loader is not None  # noqa: S101  # likewise
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
