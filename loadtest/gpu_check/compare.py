"""The same mixed traffic three ways: served, in plain PyTorch, and padded to 512 tokens as NVIDIA's v1 does."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BATCHES, ROWS = 16, 32
LIMIT = 512
MEDIAN_TOKENS, SIGMA = 60, 1.0  # prompts of chat traffic: log-normal, half below 60 tokens, one in 70 above 512
EAGER_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows per second; None where PyTorch was not at hand."""

    served_rows_per_s: float
    eager_rows_per_s: float | None
    padded_rows_per_s: float | None
    eager_device: str | None
    times_eager: float | None
    times_padded: float | None


def mixed_batches(seed: int = 7) -> list[list[int]]:
    """Return batches of row lengths in tokens, as traffic has them."""
    generator = random.Random(seed)
    scale = [generator.lognormvariate(0, SIGMA) for _ in range(BATCHES * ROWS)]
    lengths = [min(LIMIT, max(3, round(MEDIAN_TOKENS * factor))) for factor in scale]
    return [lengths[start : start + ROWS] for start in range(0, len(lengths), ROWS)]


def compare(served: float, eager: Sequence[dict[str, Any]]) -> Comparison:
    """Put the served rate beside PyTorch's two, if there are any: padded to the longest, padded to 512."""
    if not eager:
        return Comparison(served, None, None, None, None, None)
    longest, limit = eager
    return Comparison(
        served,
        longest["rows_per_s"],
        limit["rows_per_s"],
        longest["device"],
        round(served / longest["rows_per_s"], 2),
        round(served / limit["rows_per_s"], 2),
    )


def eager_times(
    python: Path, batches: Sequence[Sequence[int]], seconds: float, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Time MiniLM in PyTorch, in the training environment; empty, with a line that says why, where it cannot run."""
    results = []
    for padding in ([], ["--pad-to", str(LIMIT)]):
        command = [str(python), "-m", "classifier", "time-eager", "--seconds", str(seconds), *padding]
        try:
            done = subprocess.run(
                command, input=json.dumps(batches), capture_output=True, text=True, timeout=EAGER_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
            say(f"no comparison with PyTorch: {said}. `make train-env` makes {python}")
            return []
        results.append(json.loads(done.stdout))
        say(f"PyTorch eager {' '.join(padding)}: {results[-1]}")
    return results
