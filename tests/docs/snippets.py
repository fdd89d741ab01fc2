"""What README.md and docs/ tell people to type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Snippet:
    """One fenced block, or one command of a `sh` block with its continuation lines."""

    file: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text.splitlines()[0][:60]}"


def pages() -> list[Path]:
    """Return every page of the documentation."""
    model_cards = REPOSITORY.glob("triton_models/*/*/README.md")
    return [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/**/*.md")), *model_cards]


def blocks(language: str) -> Iterator[Snippet]:
    """Yield the blocks of one language."""
    for page in pages():
        for found, text in _BLOCK.findall(page.read_text()):
            if found == language:
                yield Snippet(str(page.relative_to(REPOSITORY)), language, text)


def commands(beginning: str) -> list[Snippet]:
    """Return the shell commands in which `beginning` occurs."""
    lines = (
        Snippet(block.file, "sh", line)
        for block in blocks("sh")
        for line in block.text.replace("\\\n", " ").splitlines()
    )
    return [line for line in lines if beginning in line.text]
