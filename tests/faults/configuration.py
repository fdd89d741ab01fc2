"""The configuration that most faults need: two models at one simulated LLM, and a policy between them."""

from __future__ import annotations

from typing import Any

from loadtest.simulated_llm import SimulatedLLM
from tests.integration.router_process import CANARY, tiers


def config(llm: SimulatedLLM, triton_port: int, **triton: Any) -> dict[str, Any]:
    """Return a configuration for `RouterProcess.start`; `triton` adds settings to its section."""
    model = {"api_base": llm.base_url, "api_key": f"sk-{CANARY}", "price": {"input": 1, "output": 1}}
    return {
        "server": {},
        "triton": {"url": f"127.0.0.1:{triton_port}", "deadline_ms": 1000, **triton},
        "models": {"cheap": model, "expensive": model},
        "policies": {"default": tiers("cheap", "expensive")},
    }
