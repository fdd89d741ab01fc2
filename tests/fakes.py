"""Fakes for what a test machine lacks: LLMs. Real processes on real sockets, each says it is simulated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from loadtest.simulated_llm import SimulatedLLM, simulated_llm

StartLLM = Callable[..., SimulatedLLM]


@pytest.fixture
def start_llm() -> Iterator[StartLLM]:
    """Starts simulated LLMs for one test: `start_llm("cheap-sim", ttft_ms=50, fault="status=503")`."""
    with contextlib.ExitStack() as running:
        yield lambda name="simulated", **options: running.enter_context(simulated_llm(name, **options))
