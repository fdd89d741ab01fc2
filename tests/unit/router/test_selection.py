"""Which policy, threshold or model a request asks for, in all the places where it may say so."""

from __future__ import annotations

import re
from typing import Any

import pytest

from router.clients.permission import Offer, Offers
from router.decide.decider import Decision, manual
from router.decide.policy import with_threshold
from router.errors import InvalidRequest, ModelNotAllowed, ModelNotFound, PolicyNotAllowed, PolicyNotFound, RouterError
from router.http.selection import select
from router.settings import PolicySettings
from tests.unit.router.examples import FIXED, LABELLED, TASKS, THREE_TIERS, TIERS, VALUE, settings

Fields = dict[str, Any]
SETTINGS = settings()
EVERYTHING = Offers(SETTINGS).to(None)


def nim(**fields: Any) -> Fields:
    return {"nim-llm-router": fields}


def ask(fields: Fields, headers: dict[str, str] | None = None) -> PolicySettings | Decision:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return select(SETTINGS, EVERYTHING, fields, [(b"content-type", b"application/json"), *pairs])


def refusal(fields: Fields, headers: dict[str, str] | None = None) -> RouterError:
    with pytest.raises(RouterError) as refused:
        ask(fields, headers)
    return refused.value


@pytest.mark.parametrize(
    ("fields", "headers", "chosen"),
    [
        ({"model": "auto"}, {}, TIERS),
        ({"model": "tasks"}, {}, TASKS),
        ({"model": "auto@0.7"}, {}, with_threshold(TIERS, 0.7)),
        ({"model": "tiers@-0.25"}, {}, with_threshold(TIERS, -0.25)),
        ({"model": "tasks@1"}, {}, with_threshold(TASKS, 1.0)),
        ({"model": "task_router@0.5"}, {}, with_threshold(LABELLED, 0.5)),
        ({"model": "auto"}, {"x-router-policy": "value"}, VALUE),
        ({"model": "value"}, {"x-router-policy": "auto"}, VALUE),
        ({"model": "value"}, {"x-router-policy": " value "}, VALUE),
        ({}, {"x-router-policy": "fixed"}, FIXED),
        ({"model": ""}, {"x-router-policy": "fixed"}, FIXED),
        ({"model": None}, {"x-router-policy": "fixed"}, FIXED),
        ({"model": "auto"}, {"x-router-threshold": "0.7"}, with_threshold(TIERS, 0.7)),
        ({"model": "tasks"}, {"x-router-threshold": " 7e-1 "}, with_threshold(TASKS, 0.7)),
        ({"model": "tiers@0.7"}, {"x-router-threshold": "0.70"}, with_threshold(TIERS, 0.7)),
        ({}, {"x-router-policy": "tiers", "x-router-threshold": "0"}, with_threshold(TIERS, 0.0)),
        (nim(policy="tasks"), {}, TASKS),
        (nim(policy="auto"), {}, TIERS),
        (nim(policy="tasks", routing_strategy="triton", model="", threshold=None), {}, TASKS),
        (nim(policy="tasks", threshold=0.7), {}, with_threshold(TASKS, 0.7)),
        (nim(policy="tasks", threshold=1), {}, with_threshold(TASKS, 1.0)),
        (nim(policy="tasks", threshold=0.7), {"x-router-threshold": "0.7"}, with_threshold(TASKS, 0.7)),
        ({"model": "", **nim(policy="tasks")}, {}, TASKS),
        ({"model": "gpt-of-the-client", **nim(policy="tasks")}, {}, TASKS),
        ({"model": 5, **nim(policy="tasks")}, {}, TASKS),
        ({"model": "cheap", **nim(policy="tasks")}, {}, TASKS),
        ({"model": "auto", **nim(policy="tasks")}, {}, TASKS),
        ({"model": "tasks", **nim(policy="auto")}, {}, TASKS),
        ({"model": "tasks@0.7", **nim(policy="tasks", threshold=0.7)}, {}, with_threshold(TASKS, 0.7)),
        ({"model": "auto", "nim-llm-router": None}, {}, TIERS),
    ],
)
def test_a_policy_is_chosen_wherever_it_is_named(fields: Fields, headers: dict[str, str], chosen: object) -> None:
    assert ask(fields, headers) == chosen


@pytest.mark.parametrize(
    ("fields", "decision"),
    [
        ({"model": "dear"}, manual("dear")),
        (nim(policy="tasks", routing_strategy="manual", model="Chatbot"), manual("cheap", "Chatbot", "tasks")),
        (nim(policy="tasks", routing_strategy="manual", model="middle"), manual("middle", "middle", "tasks")),
        (
            nim(policy="task_router", routing_strategy="manual", model="Code Generation"),
            manual("dear", "Code Generation", "task_router"),
        ),
        (nim(policy="task_router", routing_strategy="manual", model="cheap"), manual("cheap", "cheap", "task_router")),
        (nim(policy="tiers", routing_strategy="manual", model="dear"), manual("dear", "dear", "tiers")),
        (
            {"model": "anything", **nim(policy="task_router", routing_strategy="manual", model="Unknown")},
            manual("cheap", "Unknown", "task_router"),
        ),
    ],
)
def test_a_client_may_decide_itself(fields: Fields, decision: Decision) -> None:
    assert ask(fields) == decision


@pytest.mark.parametrize(
    ("fields", "headers", "places"),
    [
        ({"model": "tasks"}, {"x-router-policy": "value"}, ("x-router-policy", "model")),
        ({"model": "tasks@0.5"}, {"x-router-policy": "value"}, ("x-router-policy", "model")),
        ({"model": "tiers@0.5"}, {"x-router-threshold": "0.6"}, ("x-router-threshold", "model")),
        (nim(policy="tasks"), {"x-router-policy": "value"}, ("nim-llm-router.policy", "x-router-policy")),
        ({"model": "value", **nim(policy="tasks")}, {}, ("nim-llm-router.policy", "model")),
        ({"model": "value@0.5", **nim(policy="tasks")}, {}, ("nim-llm-router.policy", "model")),
        (
            {"model": "tasks@0.5", **nim(policy="tasks", threshold=0.6)},
            {},
            ("nim-llm-router.threshold", "model"),
        ),
        (
            nim(policy="tasks", threshold=0.6),
            {"x-router-threshold": "0.5"},
            ("nim-llm-router.threshold", "x-router-threshold"),
        ),
        (
            nim(policy="tasks", routing_strategy="manual", model="Chatbot"),
            {"x-router-policy": "value"},
            ("nim-llm-router.policy", "x-router-policy"),
        ),
        ({"model": "cheap"}, {"x-router-policy": "tasks"}, ("model", "x-router-policy")),
        ({"model": "cheap"}, {"x-router-policy": "auto"}, ("model", "x-router-policy")),
        ({"model": "cheap"}, {"x-router-threshold": "0.5"}, ("model", "x-router-threshold")),
    ],
)
def test_places_that_contradict_each_other_are_both_named(
    fields: Fields, headers: dict[str, str], places: tuple[str, str]
) -> None:
    error = refusal(fields, headers)
    assert isinstance(error, InvalidRequest)
    assert [place in str(error) for place in (f"'{places[0]}'", f"'{places[1]}'")] == [True, True]
    assert error.param in places


def test_a_header_given_twice_must_agree_with_itself() -> None:
    twice = [(b"x-router-policy", b"tasks"), (b"x-router-policy", b"value")]
    with pytest.raises(InvalidRequest, match="'x-router-policy' asks for 'tasks'"):
        select(SETTINGS, EVERYTHING, {"model": "auto"}, twice)
    assert select(SETTINGS, EVERYTHING, {"model": "auto"}, twice[:1] * 2) == TASKS


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"model": "tiers@high"}, {}, "model"),
        ({"model": "tiers@"}, {}, "model"),
        ({"model": "tiers@nan"}, {}, "model"),
        ({"model": "tiers@1.01"}, {}, "model"),
        ({"model": "auto"}, {"x-router-threshold": "inf"}, "x-router-threshold"),
        ({"model": "auto"}, {"x-router-threshold": ""}, "x-router-threshold"),
        ({"model": "auto"}, {"x-router-threshold": "0,5"}, "x-router-threshold"),
        (nim(policy="tasks", threshold="high"), {}, "nim-llm-router.threshold"),
        (nim(policy="tasks", threshold=True), {}, "nim-llm-router.threshold"),
        (nim(policy="tasks", threshold=[0.5]), {}, "nim-llm-router.threshold"),
        (nim(policy="tasks", threshold={}), {}, "nim-llm-router.threshold"),
        (nim(policy="tasks", threshold=-1.5), {}, "nim-llm-router.threshold"),
        (nim(policy="tasks", threshold=10**400), {}, "nim-llm-router.threshold"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_threshold_is_a_number_from_minus_one_to_one(fields: Fields, headers: dict[str, str], param: str) -> None:
    error = refusal(fields, headers)
    assert isinstance(error, InvalidRequest)
    assert error.param == param
    assert "-1 to 1" in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("policy", [THREE_TIERS, VALUE, FIXED], ids=lambda policy: policy.name)
@pytest.mark.parametrize("place", ["model", "header", "nim"])
def test_a_threshold_for_a_policy_without_one_is_refused(policy: PolicySettings, place: str) -> None:
    error = {
        "model": lambda: refusal({"model": f"{policy.name}@0.5"}),
        "header": lambda: refusal({"model": policy.name}, {"x-router-threshold": "0.5"}),
        "nim": lambda: refusal(nim(policy=policy.name, threshold=0.5)),
    }[place]()
    assert isinstance(error, InvalidRequest)
    assert f"'{policy.name}'" in str(error)


@pytest.mark.parametrize(
    ("fields", "headers", "kind", "param"),
    [
        ({"model": "gpt-9"}, {}, ModelNotFound, "model"),
        ({"model": "Auto"}, {}, ModelNotFound, "model"),
        ({"model": "gpt-9@0.5"}, {}, ModelNotFound, "model"),
        ({"model": "cheap@0.5"}, {}, ModelNotFound, "model"),
        ({"model": "@0.5"}, {}, ModelNotFound, "model"),
        ({"model": "auto"}, {"x-router-policy": "nobody"}, PolicyNotFound, "x-router-policy"),
        ({"model": "auto"}, {"x-router-policy": ""}, PolicyNotFound, "x-router-policy"),
        ({"model": "auto"}, {"x-router-policy": "cheap"}, PolicyNotFound, "x-router-policy"),
        (nim(policy="nobody"), {}, PolicyNotFound, "nim-llm-router.policy"),
        (nim(policy=""), {}, PolicyNotFound, "nim-llm-router.policy"),
    ],
)
def test_an_unknown_name_is_a_404_that_names_the_allowed_ones(
    fields: Fields, headers: dict[str, str], kind: type[RouterError], param: str
) -> None:
    error = refusal(fields, headers)
    assert (type(error), error.status, error.param) == (kind, 404, param)
    allowed = ["auto", *SETTINGS.policies] + (list(SETTINGS.models) if kind is ModelNotFound else [])
    assert [name for name in allowed if name not in str(error)] == []


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ("task_router", ["Code Generation", "Unknown", "cheap", "dear"]),
        ("tasks", ["Code Generation", "Chatbot", "cheap", "middle", "dear"]),
        ("tiers", ["cheap", "dear"]),
    ],
)
def test_a_manual_choice_outside_the_policy_names_the_allowed(policy: str, allowed: list[str]) -> None:
    unknown = refusal(nim(policy=policy, routing_strategy="manual", model="unpriced"))
    missing = refusal(nim(policy=policy, routing_strategy="manual"))
    wrong = refusal(nim(policy=policy, routing_strategy="manual", model=["Chatbot"]))
    assert [error.status for error in (unknown, missing, wrong)] == [404, 400, 400]
    for error in (unknown, missing, wrong):
        assert error.param == "nim-llm-router.model"
        assert [name for name in allowed if name not in str(error)] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "model"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": ["auto"]}, "model"),
        ({"nim-llm-router": "tasks"}, "nim-llm-router"),
        ({"nim-llm-router": ["tasks"]}, "nim-llm-router"),
        (nim(), "nim-llm-router.policy"),
        (nim(policy=None), "nim-llm-router.policy"),
        (nim(policy=["tasks"]), "nim-llm-router.policy"),
        (nim(policy="tasks", routing_strategy="random"), "nim-llm-router.routing_strategy"),
        (nim(policy="tasks", routing_strategy=["triton"]), "nim-llm-router.routing_strategy"),
        ({"model": "auto", "api_base": "http://example.invalid"}, "api_base"),
        ({"model": "cheap", "base_url": None}, "base_url"),
    ],
)
def test_what_is_missing_or_of_a_wrong_type_is_named(fields: Fields, param: str) -> None:
    error = refusal(fields)
    assert isinstance(error, InvalidRequest)
    assert error.param == param
    assert f"'{param}'" in str(error)


def test_a_missing_model_names_what_it_may_say() -> None:
    message = str(refusal({}, {"x-router-threshold": "0.5"}))
    assert [name for name in ("auto", *SETTINGS.policies, *SETTINGS.models) if name not in message] == []


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"model": "p" * 5000}, {}),
        ({"model": "auto"}, {"x-router-policy": "p" * 5000}),
        ({"model": "auto"}, {"x-router-threshold": "p" * 5000}),
        ({"model": "cheap"}, {"x-router-policy": "p" * 5000}),
        (nim(policy="tasks", routing_strategy="manual", model="p" * 5000), {}),
    ],
)
def test_a_prompt_in_the_wrong_place_is_not_echoed(fields: Fields, headers: dict[str, str]) -> None:
    assert "p" * 81 not in str(refusal(fields, headers))


def test_header_bytes_of_any_kind_are_only_a_wrong_name() -> None:
    with pytest.raises(PolicyNotFound):
        select(SETTINGS, EVERYTHING, {"model": "auto"}, [(b"x-router-policy", b"\xff\x00\xfe")])


# --- what a client may name ---------------------------------------------------------------------------------------

LITTLE = Offer(("fixed",), ("cheap",))
HIDDEN = {"dear", "middle", "unpriced", "auto", *SETTINGS.policies} - {"fixed"}


def test_a_policy_s_choice_needs_no_permission_and_a_client_s_own_does() -> None:
    assert select(SETTINGS, LITTLE, {"model": "fixed"}, []) == FIXED
    assert select(SETTINGS, LITTLE, {"model": "cheap"}, []) == manual("cheap")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model": "tiers"}, PolicyNotAllowed),
        ({"model": "auto"}, PolicyNotAllowed),
        ({"model": "dear"}, ModelNotAllowed),
        (nim(policy="tiers", routing_strategy="manual", model="cheap"), PolicyNotAllowed),
        (nim(policy="tiers", routing_strategy="manual", model="nobody"), PolicyNotAllowed),
        ({"model": "nobody"}, ModelNotFound),
        (nim(policy="nobody"), PolicyNotFound),
        ({}, InvalidRequest),
    ],
)
def test_an_error_names_nothing_that_is_not_on_offer(fields: Fields, kind: type[RouterError]) -> None:
    with pytest.raises(kind) as refused:
        select(SETTINGS, LITTLE, fields, [])
    asked = {fields.get("model"), fields.get("nim-llm-router", {}).get("policy"), SETTINGS.default_policy}
    words = set(re.findall(r"[a-z-]+", str(refused.value)))
    assert not words & (HIDDEN - asked)
    assert words & {"fixed", "cheap"}
