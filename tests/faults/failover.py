"""Routers whose models have replicas and fallbacks, before three simulated LLMs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.integration.conftest import closed_port
from tests.integration.router_process import CANARY, Answer, RouterProcess, chat_body

StartRouter = Callable[..., RouterProcess]

PROMPT = f"Hello? {CANARY}"


@dataclass(frozen=True, slots=True)
class Servers:
    """Two equal servers of the cheap model, and one of the expensive one."""

    one: SimulatedLLM
    two: SimulatedLLM
    expensive: SimulatedLLM

    def asked(self) -> list[int]:
        """Return how many requests each of them has seen."""
        return [llm.stats()["requests"] for llm in (self.one, self.two, self.expensive)]

    def heal(self) -> None:
        """Make all of them answer again."""
        for llm in (self.one, self.two, self.expensive):
            llm.set_fault("")


@pytest.fixture(scope="module")
def running_servers() -> Iterator[Servers]:
    with ExitStack() as running:
        yield Servers(*(running.enter_context(simulated_llm(name, any_model=True)) for name in ("one", "two", "dear")))


@pytest.fixture
def servers(running_servers: Servers) -> Iterator[Servers]:
    """The servers, healthy before and after each test."""
    running_servers.heal()
    yield running_servers
    running_servers.heal()


@dataclass(slots=True)
class Failover:
    """A router of these models: `cheap` (server one), `expensive`, and what the test adds."""

    process: RouterProcess  # from start_router, which holds it to the invariants
    servers: Servers

    def ask(self, **fields: Any) -> Answer:
        """Ask the cheap model unless told otherwise."""
        return self.process.post(chat_body(PROMPT, **{"model": "cheap", **fields}))

    def counted(self, name: str, **labels: str) -> float:
        """Return a counter of the router."""
        return self.process.metrics().total(f"llm_router_{name}_total", **labels)

    def fallbacks(self, reason: str) -> float:
        """Return how many requests have gone from the cheap to the expensive model for this reason."""
        labels = {"from": "cheap", "to": "expensive", "reason": reason}
        return self.counted("model_fallbacks", **labels)


StartFailover = Callable[..., Failover]


@pytest.fixture
def failover(start_router: StartRouter, servers: Servers) -> Iterator[StartFailover]:
    """Start a router by `failover(cheap={...}, upstreams={...}, models={...})`: what is given adds to its models.

    Its servers are healed before it is held to the invariants.
    """

    def start(
        *,
        cheap: dict[str, Any] | None = None,
        expensive: dict[str, Any] | None = None,
        models: dict[str, Any] | None = None,
        **sections: dict[str, Any],
    ) -> Failover:
        key, low, high = f"sk-{CANARY}", {"input": 1, "output": 1}, {"input": 10, "output": 10}
        config = {
            "triton": {"url": f"127.0.0.1:{closed_port()}"},
            "models": {
                "cheap": {"api_key": key, "price": low, **at(servers.one), **(cheap or {})},
                "expensive": {"api_key": key, "price": high, **at(servers.expensive), **(expensive or {})},
                **(models or {}),
            },
            "policies": {"default": {"type": "fixed", "model": "cheap"}},
            **sections,
        }
        return Failover(start_router(config), servers)

    yield start
    servers.heal()


def at(*llms: SimulatedLLM) -> dict[str, Any]:
    """Return the part of a model's configuration that says where it is."""
    return {"replicas": [{"api_base": llm.base_url} for llm in llms]}
