"""How much work one request is, as function calls: a number that no busy machine changes.

The real router before the real Triton, its decision cached, and a simulated LLM that writes each part at once. When a
change moves a count past its tolerance, measure (`make bench`), put the new count here, and say in the commit why.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from loadtest.local_triton import LocalTriton
from loadtest.processes import Child, free_port, responds
from tests.integration.router_process import CHAT, REPOSITORY

REQUESTS = 100
TOLERANCE = 0.05
EXPECTED = {"whole": 389, "stream": 708}  # on Python 3.11
ASKED: dict[str, object] = {
    "model": "auto",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the counts are Python 3.11's")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A simulated LLM that writes each part at once, with a pause between parts: one read for each."""
    port = free_port()
    command = [sys.executable, "-m", "loadtest.bench.drip", str(port), "--chunks", "2", "--interval-ms", "15"]
    child = Child.start("drip", command, log_path=tmp_path_factory.mktemp("drip") / "log", cwd=REPOSITORY)
    child.wait_until(lambda: accepts(port), deadline_s=30)
    yield port
    child.stop()


@pytest.fixture(scope="module")
def router(triton: LocalTriton, upstream: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    directory = tmp_path_factory.mktemp("counting")
    running = Router.start(directory, triton, upstream)
    yield running
    running.child.stop()


class Router:
    """A router that counts its calls."""

    def __init__(self, child: Child, port: int, count_port: int) -> None:
        self.child, self.port, self._count_port = child, port, count_port

    @classmethod
    def start(cls, directory: Path, triton: LocalTriton, upstream: int) -> Router:
        port, count_port = free_port(), free_port()
        model = {"api_base": f"http://127.0.0.1:{upstream}/v1", "price": {"input": 1, "output": 2}}
        tiers = [{"model": "cheap"}, {"model": "expensive", "from": 0.32}]
        config = {
            "server": {"port": port, "max_lag_ms": 0},
            "admin": {"port": free_port()},
            "triton": {"url": triton.grpc_url, "deadline_ms": 10000},
            "models": {"cheap": model, "expensive": model},
            "policies": {"default": {"type": "threshold", "score": "need_strong", "tiers": tiers}},
        }
        file = directory / "router.yaml"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "tests.integration.counting_router", "serve", "--config", str(file)]
        env = {"COUNT_PORT": str(count_port)}
        child = Child.start("router", command, log_path=directory / "router.log", cwd=REPOSITORY, env=env)
        child.wait_until(lambda: responds(f"http://127.0.0.1:{port}/health/live"), deadline_s=60)
        return cls(child, port, count_port)

    def calls(self) -> int:
        with socket.create_connection(("127.0.0.1", self._count_port), timeout=10) as connection:
            return int(connection.recv(64))


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def calls_per_request(router: Router, connection: HTTPConnection, body: dict[str, object]) -> float:
    """The lower quintile of many: timers tick during some requests, and a busy machine joins parts of some streams."""

    def ask() -> int:
        before = router.calls()
        connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200
        assert b"finish_reason" in content
        return router.calls() - before

    for _ in range(10):  # scored, connected, imported
        ask()
    return statistics.quantiles([ask() for _ in range(REQUESTS)], n=5)[0]


@pytest.fixture
def connection(router: Router) -> Iterator[HTTPConnection]:
    connection = HTTPConnection("127.0.0.1", router.port, timeout=30)
    yield connection
    connection.close()


def stays(count: float, what: str) -> None:
    expected = EXPECTED[what]
    assert abs(count - expected) <= TOLERANCE * expected, (
        f"{what}: {count:.1f} calls, {expected} expected. If it is meant, put the new count into EXPECTED and say why"
        " in the commit."
    )


def test_a_whole_answer_takes_as_many_calls_as_before(router: Router, connection: HTTPConnection) -> None:
    stays(calls_per_request(router, connection, ASKED), "whole")


def test_a_stream_takes_as_many_calls_as_before(router: Router, connection: HTTPConnection) -> None:
    stays(calls_per_request(router, connection, ASKED | {"stream": True}), "stream")
