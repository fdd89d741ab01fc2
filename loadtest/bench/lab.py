"""What every section of the bench is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.bench.machine import Cores


@dataclass(frozen=True, slots=True)
class Lab:
    """Where to work, on which cores, how long. `upstream_port` is the simulated LLM's that answers at once."""

    run_dir: Path
    environments: Path
    cores: Cores
    upstream_port: int
    rounds: int
    seconds: int
    is_quick: bool
    say: Callable[[str], None]

    @property
    def upstream(self) -> str:
        """The upstream's base URL, as OpenAI's clients take it."""
        return f"http://127.0.0.1:{self.upstream_port}/v1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One section of the report: Markdown for people, figures for programs, plots by file name (SVG)."""

    title: str
    text: str
    figures: Mapping[str, Any]
    notes: Sequence[str] = ()
    plots: Mapping[str, str] = field(default_factory=dict)
