"""The fault suite: every test scripts a fault and says what the router promises then.

    @pytest.mark.fault("what breaks", "what the router promises")

A test without the mark stops the collection; a parameter set may carry a mark of its own. docs/reliability.md has the
table of all of them (`python -m tests.faults.table` writes it). A stage of the router is a file here.

After each test every router that it had as a fixture (itself, or as a fixture's `.router`) is held to `invariants`; a
router that a test starts for itself comes from `start_router`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.faults.failover import failover, running_servers, servers
from tests.faults.invariants import hold
from tests.integration.conftest import client, router, running_stack, stack
from tests.integration.router_process import RouterProcess

__all__ = [
    "client",
    "failover",
    "invariants",
    "llm",
    "router",
    "running_servers",
    "running_stack",
    "servers",
    "stack",
    "start_router",
]

HERE = Path(__file__).parent
StartRouter = Callable[..., RouterProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stop at a test of this suite that does not say what breaks and what the router promises."""
    for item in items:
        if HERE in item.path.parents:
            mark = item.get_closest_marker("fault")
            words = mark.args if mark else ()
            if len(words) != 2 or not all(isinstance(word, str) and word for word in words):
                raise pytest.UsageError(f'{item.nodeid}: mark it with fault("what breaks", "what the router promises")')


@pytest.fixture(autouse=True)
def invariants(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up first and so torn down last: when the other fixtures have healed what the test broke."""
    yield
    had = [getattr(value, "router", value) for value in request.node.funcargs.values()]
    for one in {id(value): value for value in had if isinstance(value, RouterProcess)}.values():
        hold(one)


@pytest.fixture(scope="module")
def llm() -> Iterator[SimulatedLLM]:
    """A simulated LLM for the routers of a file, any model by any key."""
    with simulated_llm("any-sim", any_model=True) as llm:
        yield llm


@pytest.fixture
def start_router(tmp_path: Path) -> Iterator[StartRouter]:
    """Start routers by `start_router(config, *options, env=...)`; each is held to the invariants and stopped."""
    started: list[RouterProcess] = []

    def start(config: Mapping[str, Any] | str, *options: str, env: Mapping[str, str] | None = None) -> RouterProcess:
        directory = tmp_path / f"router-{len(started)}"
        started.append(RouterProcess.start(config, directory, *options, env=env))
        return started[-1]

    yield start
    try:
        for one in started:
            hold(one)
    finally:
        for one in started:
            one.stop()
