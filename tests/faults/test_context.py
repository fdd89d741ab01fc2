"""Requests that a model cannot hold, or that need what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.faults.failover import Failover, Servers, StartFailover
from tests.faults.invariants import counted
from tests.integration.router_process import CANARY

LONG = f"word {CANARY} " * 2000  # over 8,000 tokens by four characters each
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
IMAGE: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:image/png,"}}]
FALLBACK = {"type": "fixed", "model": "cheap", "fallbacks": ["expensive"]}
ALONE = {"type": "fixed", "model": "cheap"}


@pytest.fixture
def unequal(failover: StartFailover) -> Failover:
    """A cheap model of 1,000 tokens for text only, an expensive one of 20,000 with tools and vision."""
    return failover(
        cheap={"context_limit": 1000, "supports": []},
        expensive={"context_limit": 20_000, "supports": ["tools", "vision"]},
        policies={"default": FALLBACK, "alone": ALONE},
        default_policy="default",
        upstreams={"retry_budget": 0},
    )


@pytest.fixture
def openai_client(unequal: Failover) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=unequal.process.base_url, api_key="k", max_retries=0, timeout=20) as client:
        yield client


def messages(content: Any) -> Any:
    return [{"role": "user", "content": content}]


@pytest.mark.fault("a prompt is longer than the chosen model holds", "another one that holds it; reason `context`")
@pytest.mark.parametrize(("content", "limit"), [(LONG, None), ("Hello?", 5000)], ids=["prompt", "answer"])
def test_a_request_that_is_too_long(unequal: Failover, servers: Servers, content: str, limit: int | None) -> None:
    before = servers.asked()
    answer = unequal.ask(model="default", messages=messages(content), **({"max_tokens": limit} if limit else {}))
    assert (answer.status, answer.header("x-router-model")) == (200, "expensive")
    assert (answer.header("x-router-reason"), answer.header("x-router-fallback")) == ("context", None)
    assert [after - first for after, first in zip(servers.asked(), before, strict=True)] == [0, 0, 1]
    page = unequal.process.metrics()
    assert page.total("llm_router_requests_total", model="expensive", reason="context", outcome="ok") == 1


@pytest.mark.fault("a prompt is longer than any model of the policy holds", "400 `context_length_exceeded`")
@pytest.mark.parametrize("policy", ["default", "alone"])
def test_a_request_that_nobody_holds(unequal: Failover, servers: Servers, policy: str) -> None:
    before = servers.asked()
    with counted(unequal.process, "client_error"):
        answer = unequal.ask(model=policy, messages=messages(LONG * 3))
    error = answer.error()
    assert (answer.status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "No model on offer can take it" in error["message"]
    assert servers.asked() == before


@pytest.mark.fault("a prompt is too long for the model that the client named", "400 that names those that hold it")
def test_a_named_model_is_not_replaced(unequal: Failover, openai_client: openai.OpenAI) -> None:
    with counted(unequal.process, "client_error"), pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model="cheap", messages=messages(LONG))
    assert caught.value.code == "context_length_exceeded"
    assert "model 'cheap'. Models that can take it: expensive." in str(caught.value)


@pytest.mark.fault("a request has tools or an image, and the model cannot", "another one that can; reason `capability`")
@pytest.mark.parametrize("needs", [{"tools": TOOLS}, {"messages": messages(IMAGE)}], ids=["tools", "vision"])
def test_a_request_that_needs_more(unequal: Failover, needs: dict[str, Any]) -> None:
    answer = unequal.ask(**{"model": "default", **needs})
    assert (answer.status, answer.header("x-router-model")) == (200, "expensive")
    assert answer.header("x-router-reason") == "capability"


@pytest.mark.fault("a request needs what no model can", "400 `unsupported_capability`")
def test_a_request_that_nobody_can_answer(unequal: Failover, openai_client: openai.OpenAI) -> None:
    with counted(unequal.process, "client_error"), pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model="auto", messages=messages("Hello?"), response_format=SCHEMA)
    assert caught.value.code == "unsupported_capability"
    assert "needs json_schema" in str(caught.value)


@pytest.mark.fault("the chosen model fails, and its fallback does not hold the prompt", "the model's own error")
def test_a_fallback_that_does_not_fit_is_not_asked(failover: StartFailover, servers: Servers) -> None:
    small = {"context_limit": 100}
    started = failover(cheap={"fallbacks": ["expensive"]}, expensive=small, upstreams={"retry_budget": 0})
    before = servers.asked()
    servers.one.set_fault("status=500")
    assert started.ask(messages=messages(LONG)).status == 500
    assert started.ask(messages=messages("Hello?")).header("x-router-model") == "expensive"
    assert [after - first for after, first in zip(servers.asked(), before, strict=True)] == [2, 0, 1]


@pytest.mark.fault("`/v1/route` is asked about such a request", "the same decision, or the same 400")
def test_route_tells_the_same(unequal: Failover) -> None:
    body = {"model": "default", "messages": messages(LONG)}
    decision = unequal.process.post(body, "/v1/route").json()
    assert (decision["model"], decision["reason"], decision["fallbacks"]) == ("expensive", "context", [])
    assert set(decision["expected_cost_dollars"]) == {"cheap", "expensive"}
    answer = unequal.process.post({**body, "model": "cheap"}, "/v1/route")
    assert (answer.status, answer.error()["code"]) == (400, "context_length_exceeded")
