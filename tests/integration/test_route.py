"""POST /v1/route: the decision and all that led to it, for one chat or up to 256 prompts, and nothing forwarded."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest

from router.settings import TASK_TYPES
from tests.integration.conftest import Stack
from tests.integration.router_process import CANARY, RouterProcess, chat_body, send

ROUTE = "/v1/route"
OUTCOMES = ["both", "neither", "only_strong", "only_weak"]
_numbers = itertools.count()


def fresh(count: int) -> list[str]:
    """Return prompts that nobody has asked before, so that no cache knows them."""
    return [f"Explain rule {next(_numbers)} of the house in a few words." for _ in range(count)]


def route(router: RouterProcess, **fields: Any) -> Any:
    answer = router.post(fields, ROUTE)
    assert answer.status == 200, answer.body
    return answer.json()


def route_all(router: RouterProcess, inputs: list[str], **fields: Any) -> list[dict[str, Any]]:
    answer = route(router, inputs=inputs, **fields)
    assert answer["object"] == "list"
    return list(answer["data"])


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls and rows, as the router and as Triton count them, and rows that were shared."""

    calls: float
    rows: float
    shared: float
    triton_calls: float
    triton_rows: float

    def since(self, before: Calls) -> tuple[float, ...]:
        return tuple(getattr(self, name) - getattr(before, name) for name in self.__slots__)


def calls(stack: Stack) -> Calls:
    page = stack.router.metrics()
    port = int(stack.triton.http_url.rsplit(":", 1)[1])  # its statistics are exact at once, its metrics later
    [served] = send(port, "GET", "/v2/models/prompt_classifier/stats").json()["model_stats"]
    return Calls(
        page.total("llm_router_batch_rows_count"),
        page.total("llm_router_batch_rows_sum"),
        page.total("llm_router_shared_rows_total"),
        served["inference_stats"]["success"]["count"],
        served["inference_count"],
    )


def test_one_chat(stack: Stack) -> None:
    [text] = fresh(1)
    asked = stack.cheap.stats()["requests"] + stack.expensive.stats()["requests"]
    decision = route(stack.router, **chat_body(text))
    score = decision["score"]
    assert decision["model"] == ("cheap" if score < 0.3 else "expensive")
    [turn] = decision.pop("turns")
    costs = decision.pop("expected_cost_dollars")
    assert decision == {
        "object": "route.decision",
        "model": decision["model"],
        "policy": "default",
        "reason": "threshold",
        "source": "classifier",
        "fallback_reason": None,
        "score": score,
        "label": decision["model"],
        "classifier_version": "1",
        "fallbacks": [],
    }
    assert sorted(turn["outcome"]) == OUTCOMES
    assert sum(turn["outcome"].values()) == pytest.approx(1, abs=1e-3)
    assert turn["scores"]["p_weak"] == pytest.approx(turn["outcome"]["both"] + turn["outcome"]["only_weak"])
    assert turn["scores"]["need_strong"] == pytest.approx(score)
    assert tuple(turn["task_type"]) == TASK_TYPES
    assert turn["task"] == max(turn["task_type"], key=turn["task_type"].__getitem__)
    assert turn["dimensions"] is None or all(0 <= value <= 1 for value in turn["dimensions"].values())
    assert (turn["tokens_seen"] > 0, turn["tokens_dropped"]) == (True, 0)
    assert sorted(costs) == ["cheap", "expensive"]
    assert stack.cheap.stats()["requests"] + stack.expensive.stats()["requests"] == asked


def test_expected_costs(router: RouterProcess) -> None:
    """4 characters a token and 4 tokens a message in; 256 tokens out, or the request's own limit when it is lower."""
    text = "x" * 400
    costs = route(router, **chat_body(text))["expected_cost_dollars"]
    assert costs["cheap"] == pytest.approx((104 * 0.15 + 256 * 0.60) / 1e6)
    assert costs["expensive"] == pytest.approx((104 * 2.50 + 256 * 10.0) / 1e6)
    costs = route(router, **chat_body(text, max_tokens=10))["expected_cost_dollars"]
    assert costs["expensive"] == pytest.approx((104 * 2.50 + 10 * 10.0) / 1e6)
    costs = route(router, **chat_body(text, model="with-unpriced"))["expected_cost_dollars"]
    assert costs["unpriced"] is None
    assert costs["expensive"] > 0


def test_256_prompts_take_8_calls_of_32(stack: Stack) -> None:
    inputs = fresh(256)
    before = calls(stack)
    decisions = route_all(stack.router, inputs)
    assert [one["source"] for one in decisions] == ["classifier"] * 256
    assert calls(stack).since(before) == (8, 256, 0, 8, 256)

    again = route_all(stack.router, inputs)
    assert [one["source"] for one in again] == ["cache"] * 256
    assert [one["turns"] for one in again] == [one["turns"] for one in decisions]
    assert calls(stack).since(before) == (8, 256, 0, 8, 256)


def test_results_belong_to_their_prompts(router: RouterProcess) -> None:
    """What came in one batch is what each prompt gets when a chat asks for it alone."""
    inputs = [f"{text} {'Give every detail. ' * i}" for i, text in enumerate(fresh(12))]
    together = route_all(router, inputs)
    assert len({one["turns"][0]["tokens_seen"] for one in together}) == 12
    for text, one in zip(inputs, together, strict=True):
        answer = router.post(chat_body(text))
        assert answer.header("x-router-score") == f"{one['score']:.4f}"
        assert answer.header("x-router-model") == one["model"]
        assert answer.header("x-router-decision") == "cache"


def test_a_batch_does_not_change_a_score(stack: Stack) -> None:
    """The length of its neighbours is padding to a prompt, and padding must not be seen."""
    [text] = fresh(1)
    [alone] = route_all(stack.router, [text])
    neighbours = [f"{other} {'and so on ' * 100}" for other in fresh(31)]
    with_space = text + " "  # the same tokens under another key of the cache
    *_, last = route_all(stack.router, [*neighbours, with_space])
    assert last["source"] == "classifier"
    assert last["score"] == pytest.approx(alone["score"], abs=1e-4)


def test_identical_prompts_share_a_row(stack: Stack) -> None:
    [text] = fresh(1)
    before = calls(stack)
    decisions = route_all(stack.router, [text] * 10)
    assert all(one == decisions[0] for one in decisions)
    assert calls(stack).since(before) == (1, 1, 9, 1, 1)


def test_a_conversation_is_as_hard_as_its_hardest_recent_turn(stack: Stack) -> None:
    turns = fresh(8)
    messages = [
        message
        for text in turns
        for message in ({"role": "user", "content": text}, {"role": "assistant", "content": "Yes."})
    ]
    decision = route(stack.router, **chat_body(messages=messages))
    scores = [one["score"] for one in route_all(stack.router, turns)]
    assert len(decision["turns"]) == 6
    assert decision["score"] == max(scores[-6:])
    last = route(stack.router, **chat_body(messages=messages, model="last-turn"))
    assert (len(last["turns"]), last["score"], last["source"]) == (1, scores[-1], "cache")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "cheap"}, ("cheap", "none", "manual", None)),
        ({"model": "only-cheap"}, ("cheap", "only-cheap", "fixed", None)),
        ({"model": "default@-1"}, ("expensive", "default", "threshold", "number")),
        ({"model": "default@1"}, ("cheap", "default", "threshold", "number")),
        ({"nim-llm-router": {"policy": "default", "threshold": 1}}, ("cheap", "default", "threshold", "number")),
        ({}, (None, "default", "threshold", "number")),
    ],
)
def test_inputs_take_every_way_to_choose(
    router: RouterProcess, fields: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    [decision] = route_all(router, ["What is the capital of France?"], **fields)
    model, policy, reason, score = expected
    assert model in (None, decision["model"])
    assert (decision["policy"], decision["reason"]) == (policy, reason)
    assert (decision["score"] is not None) == (score is not None)


def test_expected_value_weighs_gain_against_cost(router: RouterProcess) -> None:
    """At 1000 dollars a better answer, any gain above a thousandth of a cent is worth the expensive model."""
    for decision in route_all(router, fresh(5), model="value"):
        assert decision["reason"] == "expected_value"
        assert decision["score"] == pytest.approx(decision["turns"][0]["scores"]["gain"])
        extra = decision["expected_cost_dollars"]["expensive"] - decision["expected_cost_dollars"]["cheap"]
        assert decision["model"] == ("expensive" if decision["score"] * 1000 > extra else "cheap")


def test_a_prompt_without_text(router: RouterProcess) -> None:
    [decision] = route_all(router, [" "])
    assert (decision["model"], decision["reason"], decision["turns"]) == ("expensive", "no_text", [])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": ["x"] * 257}, "inputs"),
        ({"inputs": f"one {CANARY}"}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": ["x", "y", 7]}, "inputs[2]"),
        ({"inputs": ["x"], "messages": [{"role": "user", "content": CANARY}]}, "inputs"),
        ({"inputs": ["x"], "model": 7}, "model"),
        ({"model": "auto"}, "messages"),
        ({"messages": [{"role": "user", "content": CANARY}]}, "model"),
    ],
)
def test_what_is_refused(router: RouterProcess, body: dict[str, Any], param: str) -> None:
    answer = router.post(body, ROUTE)
    assert (answer.status, answer.error()["param"]) == (400, param)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b'{"inputs":["a"],"inputs":["b"]}', {}, 400, "invalid_json"),
        (b'{"inputs":["x"]}', {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        (b'{"inputs":["' + b"x" * 4_194_304 + b'"]}', {}, 413, "body_too_large"),
        (b'{"inputs":["x"],"model":"nonsense"}', {}, 404, "model_not_found"),
    ],
    ids=range(5),
)
def test_bodies_are_read_as_strictly_as_chats(
    router: RouterProcess, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = router.post(body, ROUTE, headers)
    assert (answer.status, answer.error()["code"]) == (status, code)
    assert math.isclose(router.metrics().total("llm_router_in_flight_requests"), 0)
