"""What whoever runs the router looks at: models, health, configuration, metrics, docs; and several workers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.integration.conftest import CHEAP_KEY, Stack, stack_config
from tests.integration.router_process import (
    CANARY,
    EXPLANATORY_HEADERS,
    RouterProcess,
    chat_body,
    has_ended,
    wait_until,
)


def test_models(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert listed["auto"].model_extra == {"kind": "policy", "policy": "default"}
    assert {"default", "value", "task", "only-cheap", "cheap", "expensive"} <= set(listed)
    assert all(model.object == "model" and model.created > 0 for model in listed.values())
    assert (listed["default"].model_extra or {})["models"] == ["cheap", "expensive"]
    assert (listed["unpriced"].model_extra or {})["price"] is None
    assert client.models.retrieve("cheap").model_extra == {
        "kind": "model",
        "context_limit": None,
        "price": {"input": 0.15, "output": 0.6, "unit": "dollars per million tokens", "source": "configuration"},
    }
    with pytest.raises(openai.NotFoundError, match="'nonsense' is not among: auto, default"):
        client.models.retrieve("nonsense")


def test_everything_that_is_listed_can_be_asked(client: openai.OpenAI) -> None:
    for model in client.models.list():
        if model.id in ("three", "canned", "impatient-canned", "refused"):  # these do not answer in OpenAI's shape
            continue
        answer = client.chat.completions.create(model=model.id, messages=[{"role": "user", "content": "Hello?"}])
        assert answer.choices


def test_health(router: RouterProcess) -> None:
    assert router.get("/health").json() == {"status": "OK"}
    assert router.get("/health/live").json() == {"status": "live"}
    assert router.ready() == {"status": "ready", "classifier": "ok"}


def test_the_configuration_is_shown_without_its_keys(router: RouterProcess) -> None:
    config: Any = router.get("/config").json()
    assert config["models"]["cheap"]["replicas"][0]["api_key"] == "[REDACTED]"
    assert config["models"]["canned"]["replicas"][0]["api_key"] is None
    assert config["models"]["unpriced"]["price"] is None
    assert config["policies"]["default"]["tiers"] == [
        {"model": "cheap", "at": None},
        {"model": "expensive", "at": 0.3},
    ]
    assert config["policies"]["default"]["type"] == "threshold"


PAGES = ("/config", "/metrics", "/openapi.json", "/docs", "/health", "/health/live", "/health/ready", "/v1/models")


@pytest.mark.parametrize("path", PAGES)
def test_no_page_shows_a_key_or_a_prompt(router: RouterProcess, path: str) -> None:
    router.post(chat_body(f"My secret is {CANARY}"))
    answer = router.get(path)
    assert answer.status == 200
    assert CANARY.encode() not in answer.body
    assert router.post(b"{}", path).status == 405


def test_metrics_parse_and_are_well_named(router: RouterProcess) -> None:
    router.post(chat_body("Hello?"))
    answer = router.get("/metrics")
    assert (answer.header("content-type") or "").startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.body.decode()))
    assert len(families) > 15
    for family in families:
        assert re.fullmatch(r"llm_router_[a-z_]+", family.name), family.name
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert sample.value >= 0
            assert not re.search(r"(_ms|_milliseconds|_minutes)$", sample.name)
    timed = {family.name for family in families if family.type == "histogram"}
    assert "llm_router_overhead_seconds" in timed
    assert "llm_router_upstream_ttft_seconds" in timed


def test_accepted_is_the_sum_of_outcomes(stack: Stack) -> None:
    name = "llm_router_requests_total"
    router = stack.router
    before = router.metrics()
    stack.expensive.set_fault("status=500")
    bodies: list[Any] = [
        chat_body(model="default@1"),
        chat_body(model="default@-1"),
        chat_body(model="refused"),
        chat_body(model="nonsense"),
        b"{",
    ]
    assert [router.post(body).status for body in bodies] == [200, 500, 502, 404, 400]
    after = router.metrics()
    outcomes = {"ok": 1, "upstream_5xx": 1, "upstream_error": 1, "client_error": 2}
    for outcome, count in outcomes.items():
        assert after.total(name, outcome=outcome) - before.total(name, outcome=outcome) == count
    assert after.total(name) - before.total(name) == len(bodies)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def test_openapi_describes_the_chat_paths(router: RouterProcess) -> None:
    schema: Any = router.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    assert {"title", "version"} <= set(schema["info"])
    for path in ("/v1/chat/completions", "/completions"):
        operation = schema["paths"][path]["post"]
        assert sorted(operation["responses"]["200"]["headers"]) == sorted(
            [*EXPLANATORY_HEADERS, "x-router-fallback", "x-upstream-request-id"]
        )
        assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
        assert {"400", "404", "408", "413", "415", "429", "502", "503", "504"} <= set(operation["responses"])
        assert operation["requestBody"]["required"]
    assert {"/v1/route", "/v1/models", "/health/ready", "/config", "/metrics"} <= set(schema["paths"])
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert all(operation["responses"] for operation in operations)
    for reference in set(references(schema)):
        node = schema
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_docs(router: RouterProcess) -> None:
    answer = router.get("/docs")
    assert (answer.header("content-type") or "").startswith("text/html")
    assert b"/openapi.json" in answer.body


@pytest.fixture(scope="module")
def slow_llm() -> Iterator[SimulatedLLM]:
    with simulated_llm("cheap-sim", api_key=CHEAP_KEY, ttft_ms=20) as llm:
        yield llm


def test_several_workers_count_as_one(stack: Stack, slow_llm: SimulatedLLM, tmp_path: Path) -> None:
    config = stack_config(stack.triton.grpc_url, slow_llm, stack.expensive, stack.canned)
    router = RouterProcess.start(config, tmp_path, "--workers", "2")
    try:
        parent = psutil.Process(router.child.pid)
        workers = parent.children()
        assert len(workers) == 2
        shared = [Path(file.path) for file in workers[0].memory_maps() if file.path.endswith(".db")]
        directory = shared[0].parent
        wait_until(lambda: all(any(directory.glob(f"*_{worker.pid}.db")) for worker in workers))

        def ask(number: int) -> int:
            body = chat_body(f"Question {number}: what is a fjord?", model="default@1", stream=number % 2 == 0)
            return router.post(body).status

        with ThreadPoolExecutor(16) as clients:
            assert set(clients.map(ask, range(120))) == {200}
        # An answer is counted after it has left, and a worker tells the others of it within 20 ms.
        wait_until(lambda: router.metrics().total("llm_router_requests_total", outcome="ok") >= 120)
        for _ in range(10):  # whichever worker answers the scrape
            page = router.metrics()
            assert page.total("llm_router_requests_total", outcome="ok") == 120
            assert page.total("llm_router_batch_rows_sum") + page.total("llm_router_shared_rows_total") == 120
            assert page.total("llm_router_in_flight_requests") == 0
        assert slow_llm.stats()["requests"] == 120
    finally:
        router.stop()
    assert not directory.exists()
    assert all(map(has_ended, workers))
