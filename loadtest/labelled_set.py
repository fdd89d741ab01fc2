"""The project's labelled prompts, which the demo and the load test send. Data of another room, so no import of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

DIRECTORY = Path(__file__).parents[1] / "classifier" / "data" / "prompts"


class LabelledPrompt(msgspec.Struct, frozen=True):
    """What is used here of a line; `classifier/data/README.md` explains all of it."""

    id: str
    language: str
    turns: tuple[str, ...]  # the user's, oldest first
    task_type: str
    difficulty: Literal["easy", "medium", "hard"]


def labelled_prompts() -> list[LabelledPrompt]:
    """Return all of them, by file and line; raises FileNotFoundError when they are not there."""
    decode = msgspec.json.Decoder(LabelledPrompt).decode
    prompts = [decode(line) for path in sorted(DIRECTORY.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    if not prompts:
        raise FileNotFoundError(f"{DIRECTORY} has no *.jsonl: the demo and the load test need the labelled prompts")
    return prompts
