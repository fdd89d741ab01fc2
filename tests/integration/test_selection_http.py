"""Every way in which a request can say which policy, threshold or model it wants."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.router_process import CHAT, RouterProcess, chat_body

EASY = "What is the capital of France?"


def chosen(router: RouterProcess, headers: dict[str, str] | None = None, **fields: Any) -> tuple[str, ...]:
    """Return (model, policy, reason) as the answer's headers tell."""
    answer = router.post(chat_body(EASY, **fields), headers=headers)
    assert answer.status == 200, answer.body
    return tuple(answer.header(f"x-router-{name}") or "" for name in ("model", "policy", "reason"))


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({"model": "only-cheap"}, {}, ("cheap", "only-cheap", "fixed")),
        ({"model": "default@-1"}, {}, ("expensive", "default", "threshold")),
        ({"model": "default@1"}, {}, ("cheap", "default", "threshold")),
        ({"model": "auto@-1"}, {}, ("expensive", "default", "threshold")),
        ({"model": "auto"}, {"x-router-threshold": "-1"}, ("expensive", "default", "threshold")),
        ({"model": "auto"}, {"x-router-policy": "only-cheap"}, ("cheap", "only-cheap", "fixed")),
        (
            {"model": "last-turn"},
            {"x-router-policy": "auto", "x-router-threshold": "1.0"},
            ("cheap", "last-turn", "threshold"),
        ),
        ({"model": "default@1"}, {"x-router-policy": "default"}, ("cheap", "default", "threshold")),
        ({"model": "expensive"}, {}, ("expensive", "none", "manual")),
        ({"model": "", "nim-llm-router": {"policy": "only-cheap"}}, {}, ("cheap", "only-cheap", "fixed")),
        ({"nim-llm-router": {"policy": "default", "threshold": -1}}, {}, ("expensive", "default", "threshold")),
        (
            {
                "model": "expensive",
                "nim-llm-router": {"policy": "default", "threshold": 1, "routing_strategy": "triton"},
            },
            {},
            ("cheap", "default", "threshold"),
        ),
        (
            {"nim-llm-router": {"policy": "default", "routing_strategy": "manual", "model": "expensive"}},
            {},
            ("expensive", "default", "manual"),
        ),
        (
            {"nim-llm-router": {"policy": "task", "routing_strategy": "manual", "model": "Code Generation"}},
            {},
            ("expensive", "task", "manual"),
        ),
    ],
)
def test_each_way_to_choose(
    router: RouterProcess, fields: dict[str, Any], headers: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert chosen(router, headers, **fields) == expected


def test_the_model_field_may_be_left_out_when_a_header_names_the_policy(router: RouterProcess) -> None:
    body = {"messages": [{"role": "user", "content": EASY}]}
    answer = router.post(body, headers={"x-router-policy": "only-cheap"})
    assert (answer.status, answer.header("x-router-policy")) == (200, "only-cheap")
    assert "'model' is missing" in router.post(body).error()["message"]


@pytest.mark.parametrize(
    ("fields", "headers", "named"),
    [
        ({"model": "default"}, {"x-router-policy": "task"}, ("model", "x-router-policy")),
        ({"model": "default@0.2"}, {"x-router-threshold": "0.3"}, ("model", "x-router-threshold")),
        ({"nim-llm-router": {"policy": "task"}, "model": "default"}, {}, ("nim-llm-router.policy", "model")),
        (
            {"nim-llm-router": {"policy": "default", "threshold": 0.1}},
            {"x-router-threshold": "0.2"},
            ("nim-llm-router.threshold", "x-router-threshold"),
        ),
        ({"model": "cheap"}, {"x-router-policy": "task"}, ("model", "x-router-policy")),
        ({"model": "cheap"}, {"x-router-threshold": "0.5"}, ("model", "x-router-threshold")),
    ],
)
def test_places_that_contradict_each_other_are_both_named(
    router: RouterProcess, fields: dict[str, Any], headers: dict[str, str], named: tuple[str, str]
) -> None:
    answer = router.post(chat_body(EASY, **fields), headers=headers)
    assert answer.status == 400
    assert all(f"'{place}'" in answer.error()["message"] for place in named)


@pytest.mark.parametrize(
    ("fields", "headers", "code", "param"),
    [
        ({"model": "nonsense"}, {}, "model_not_found", "model"),
        ({"model": "nonsense@0.5"}, {}, "model_not_found", "model"),
        ({"model": "auto"}, {"x-router-policy": "nonsense"}, "policy_not_found", "x-router-policy"),
        ({"nim-llm-router": {"policy": "nonsense"}}, {}, "policy_not_found", "nim-llm-router.policy"),
        (
            {"nim-llm-router": {"policy": "task", "routing_strategy": "manual", "model": "nonsense"}},
            {},
            "model_not_found",
            "nim-llm-router.model",
        ),
    ],
)
def test_an_unknown_name_is_a_404_that_lists_the_allowed_ones(
    router: RouterProcess, fields: dict[str, Any], headers: dict[str, str], code: str, param: str
) -> None:
    answer = router.post(chat_body(EASY, **fields), headers=headers)
    error = answer.error()
    assert (answer.status, error["code"], error["param"]) == (404, code, param)
    allowed = ("cheap", "expensive") if param == "nim-llm-router.model" else ("default", "task", "only-cheap")
    assert all(name in error["message"] for name in allowed)


@pytest.mark.parametrize("threshold", ["high", "1.01", "-2", "nan", "inf", ""])
def test_a_threshold_that_is_none(router: RouterProcess, threshold: str) -> None:
    for body, headers, where in (
        (chat_body(EASY, model=f"default@{threshold}"), {}, "model"),
        (chat_body(EASY), {"x-router-threshold": threshold}, "x-router-threshold"),
    ):
        answer = router.post(body, headers=headers)
        assert (answer.status, answer.error()["param"]) == (400, where)


@pytest.mark.parametrize("policy", ["three", "value", "only-cheap"])
def test_a_threshold_for_a_policy_that_takes_none_is_refused(router: RouterProcess, policy: str) -> None:
    answer = router.post(chat_body(EASY, model=f"{policy}@0.5"))
    assert answer.status == 400
    assert f"'{policy}' takes no threshold" in answer.error()["message"]


@pytest.mark.parametrize("field", ["api_base", "base_url"])
def test_a_request_cannot_choose_an_address(router: RouterProcess, field: str) -> None:
    answer = router.post(chat_body(EASY, **{field: "http://169.254.169.254/"}))
    assert (answer.status, answer.error()["param"]) == (400, field)


def test_the_score_decides(router: RouterProcess) -> None:
    """The tier is the one that the score in the header belongs to, on either side of a threshold put there."""
    score = float(router.post(chat_body(EASY)).header("x-router-score") or "nan")
    for threshold, model in ((score - 0.001, "expensive"), (score + 0.001, "cheap")):
        answer = router.post(chat_body(EASY, model=f"default@{threshold:.4f}"), CHAT)
        assert answer.header("x-router-model") == model
