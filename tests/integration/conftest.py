"""The running stack that most integration tests share: real Triton, simulated LLMs, and one router in front."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from loadtest.local_triton import LocalTriton
from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.integration.canned_llm import CannedLLM, canned_llm
from tests.integration.router_process import CANARY, RouterProcess, tiers

CHEAP_KEY, EXPENSIVE_KEY = f"sk-cheap-{CANARY}", f"sk-expensive-{CANARY}"


@dataclass(frozen=True, slots=True)
class Stack:
    """One router before its upstreams. Models: cheap, expensive, impatient (cheap with short timeouts), unpriced,
    canned, refused; policies: see `stack_config`.
    """

    router: RouterProcess
    triton: LocalTriton
    cheap: SimulatedLLM
    expensive: SimulatedLLM
    canned: CannedLLM


@pytest.fixture(scope="session")
def running_stack(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with contextlib.ExitStack() as running:
        start = running.enter_context
        cheap = start(simulated_llm("cheap-sim", api_key=CHEAP_KEY))
        expensive = start(simulated_llm("expensive-sim", api_key=EXPENSIVE_KEY))
        canned = start(canned_llm())
        config = stack_config(triton.grpc_url, cheap, expensive, canned)
        router = RouterProcess.start(config, tmp_path_factory.mktemp("router"))
        running.callback(router.stop)
        yield Stack(router, triton, cheap, expensive, canned)


@pytest.fixture
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The shared stack; after each test its upstreams are healthy and nothing is in flight."""
    yield running_stack
    running_stack.cheap.set_fault("")
    running_stack.expensive.set_fault("")
    running_stack.router.settles()


@pytest.fixture
def router(stack: Stack) -> RouterProcess:
    return stack.router


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    """The real client, with the key that belongs to the router and must stay there."""
    key = f"sk-client-{CANARY}"
    with openai.OpenAI(base_url=stack.router.base_url, api_key=key, max_retries=0, timeout=20) as client:
        yield client


def stack_config(triton_url: str, cheap: SimulatedLLM, expensive: SimulatedLLM, canned: CannedLLM) -> dict[str, Any]:
    to_cheap = {"api_base": cheap.base_url, "api_key": CHEAP_KEY, "model": "cheap-sim"}
    cheap_price, high_price = {"input": 0.15, "output": 0.6}, {"input": 2.5, "output": 10.0}
    hurry = {"first_byte_s": 0.5, "idle_s": 0.5}
    return {
        "server": {"body_timeout_s": 2},
        # A deadline that two busy cores keep: that the classifier decides is what most of these tests look at.
        "triton": {"url": triton_url, "deadline_ms": 5000},
        # Tests of single answers: what one model did to the test before shall not count against it.
        "upstreams": {"failures_to_open": 1_000_000, "max_cooldown_s": 0},
        "models": {
            "cheap": {**to_cheap, "price": cheap_price},
            "expensive": {
                "api_base": expensive.base_url,
                "api_key": EXPENSIVE_KEY,
                "model": "expensive-sim",
                "price": high_price,
            },
            "impatient": {**to_cheap, "price": cheap_price, "timeouts": hurry},
            "unpriced": to_cheap,
            "canned": {"api_base": canned.base_url, "model": "canned-llm", "price": cheap_price},
            "impatient-canned": {"api_base": canned.base_url, "price": cheap_price, "timeouts": hurry},
            "refused": {"api_base": f"http://127.0.0.1:{closed_port()}/v1", "price": cheap_price},
        },
        "policies": {
            "default": tiers("cheap", "expensive"),
            "three": tiers("cheap", "canned", "expensive"),
            "last-turn": {**tiers("cheap", "expensive"), "conversation": "last"},
            "value": {"type": "expected_value", "weak": "cheap", "strong": "expensive", "value": 1000},
            "task": {
                "type": "task_map",
                "models": {"Code Generation": "expensive", "Open QA": "cheap"},
                "default_model": "cheap",
            },
            "only-cheap": {"type": "fixed", "model": "cheap"},
            "with-unpriced": tiers("unpriced", "expensive"),
        },
        "default_policy": "default",
    }


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
