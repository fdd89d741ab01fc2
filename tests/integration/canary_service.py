"""A Triton, a router of two workers that reads the shares beside it, and clients: what promotions are tried on."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.local_triton import LocalTriton
from loadtest.simulated_llm import simulated_llm
from tests.integration.router_process import CHAT, REPOSITORY, RouterProcess, chat_body, send, tiers
from tests.tiny_classifier import WORDS

VOCABULARY = [word for word in WORDS if word.isalpha()]
FAST = ("--steps", "30", "100", "--step-seconds", "0.5", "--min-decisions", "40", "--step-timeout", "60")


@dataclass(frozen=True, slots=True)
class Service:
    """The Triton serves version 1; `model` is the directory in its repository."""

    triton: LocalTriton
    router: RouterProcess
    model: Path
    admin_url: str

    def answer(self, prompt: str) -> tuple[int, str | None, str | None]:
        """Return status, classifier version and where the decision came from."""
        answer = send(self.router.port, "POST", CHAT, chat_body(prompt))
        return answer.status, answer.header("x-router-classifier-version"), answer.header("x-router-decision")

    def command(self, name: str, *options: str) -> list[str]:
        where = ["--model", str(self.model), "--config-name", "cpu", "--router", self.admin_url]
        return [sys.executable, "-m", "classifier", name, *where, *options]

    def run(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = self.command(name, *options)
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, check=False)

    def promote(self, candidate: Path, held_out: Path, *options: str) -> subprocess.CompletedProcess[str]:
        triton = ("--triton", self.triton.grpc_url, "--bootstrap", "100")
        return self.run("promote", "--candidate", str(candidate), "--data", str(held_out), *triton, *FAST, *options)


@contextmanager
def running_service(directory: Path, models: Path, **settings: Mapping[str, Any]) -> Iterator[Service]:
    """Start all of it for a model repository, of which Triton gets a copy; `settings` are added to the router's."""
    with LocalTriton.start(directory / "triton", models=models) as triton, simulated_llm("cheap-sim") as llm:
        model = directory / "triton" / "models" / "prompt_classifier"
        (model / "shares").write_text("1\n")
        upstream = {"api_base": llm.base_url, "model": "cheap-sim", "price": {"input": 1, "output": 2}}
        config = {
            "server": {"workers": 2},
            "triton": {
                "url": triton.grpc_url,
                "deadline_ms": 5000,
                "versions": f"${{file:{model / 'shares'}}}",
            },
            "models": {"cheap": upstream, "expensive": {**upstream, "price": {"input": 10, "output": 20}}},
            "policies": {"default": tiers("cheap", "expensive", start=0.15)},
            **settings,
        }
        router = RouterProcess.start(config, directory / "router")
        try:
            found = re.search(r"dashboard at (http://127\.0\.0\.1:\d+)", router.log())
            assert found is not None
            yield Service(triton, router, model, found.group(1))
        finally:
            router.stop()


@dataclass
class Load:
    """Requests of four clients, from entering the context to leaving it; most prompts are new."""

    service: Service
    answers: list[tuple[int, str | None, str | None]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        rng = np.random.default_rng(number)
        while not self._stop.is_set():
            self.answers.append(self.service.answer(" ".join(rng.choice(VOCABULARY, 5).tolist())))
            time.sleep(0.01)

    def count(self) -> tuple[Counter[int], Counter[str | None]]:
        """Return how many answers had each status, and each version."""
        return Counter(status for status, _, _ in self.answers), Counter(version for _, version, _ in self.answers)
