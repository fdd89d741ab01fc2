"""Which models can take a request, and where it goes when the chosen one cannot."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from router.decide.fit import misfit, needed_tokens, plan
from router.decide.prompt import Prompt
from router.errors import ContextLengthExceeded, UnsupportedCapability
from router.settings import ModelSettings
from tests.unit.router.examples import FIXED, MODELS, THREE_TIERS, TIERS

LONG = "x" * 4000  # a thousand tokens, and four for its message
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}
IMAGE = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]


def prompt(content: Any = "Hello?", **fields: Any) -> Prompt:
    return Prompt.of_chat({"messages": [{"role": "user", "content": content}], **fields})


def models(**changes: dict[str, Any]) -> dict[str, ModelSettings]:
    return {name: dataclasses.replace(model, **changes.get(name, {})) for name, model in MODELS.items()}


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        (prompt(), set()),
        (prompt(**TOOLS), {"tools"}),
        (prompt(functions=[{"name": "f"}]), {"tools"}),
        (prompt(tools=[]), set()),
        (prompt(tools=None), set()),
        (prompt(**SCHEMA), {"json_schema"}),
        (prompt(response_format={"type": "json_object"}), set()),
        (prompt(response_format="json_schema"), set()),
        (prompt(IMAGE), {"vision"}),
        (prompt(IMAGE, **TOOLS, **SCHEMA), {"vision", "tools", "json_schema"}),
    ],
)
def test_what_a_request_needs(asked: Prompt, needs: set[str]) -> None:
    assert asked.needs == needs


def test_tokens_are_those_of_the_prompt_and_those_set_aside() -> None:
    assert needed_tokens(prompt(LONG)) == 1004
    assert needed_tokens(prompt(LONG, max_tokens=100)) == 1104


@pytest.mark.parametrize(
    ("model", "asked", "unmet"),
    [
        ({}, prompt(LONG, **TOOLS), None),
        ({"context_limit": 1004}, prompt(LONG), None),
        ({"context_limit": 1003}, prompt(LONG), "context"),
        ({"context_limit": 1004}, prompt(LONG, max_tokens=1), "context"),
        ({"supports": ()}, prompt(), None),
        ({"supports": ()}, prompt(**TOOLS), "capability"),
        ({"supports": ("tools", "vision")}, prompt(**TOOLS), None),
        ({"supports": ("tools",)}, prompt(IMAGE, **TOOLS), "capability"),
    ],
)
def test_what_a_model_cannot_take(model: dict[str, Any], asked: Prompt, unmet: str | None) -> None:
    assert misfit(models(cheap=model)["cheap"], asked) == unmet


def test_a_model_that_fits_keeps_the_request_and_its_fallbacks_that_fit() -> None:
    configured = models(cheap={"fallbacks": ("dear", "middle")}, middle={"context_limit": 100})
    assert plan("cheap", TIERS, prompt(), configured).fallbacks == ("dear", "middle")
    planned = plan("cheap", TIERS, prompt(LONG), configured)
    assert (planned.model, planned.fallbacks, planned.misfit) == ("cheap", ("dear",), None)


def test_a_policy_s_fallbacks_stand_in_for_the_model_s() -> None:
    configured = models(cheap={"fallbacks": ("dear",)})
    policy = dataclasses.replace(TIERS, fallbacks=("middle", "cheap"))
    assert plan("cheap", policy, prompt(), configured).fallbacks == ("middle",)
    assert plan("cheap", dataclasses.replace(TIERS, fallbacks=()), prompt(), configured).fallbacks == ()
    assert plan("cheap", None, prompt(), configured).fallbacks == ("dear",)


SMALL = {"context_limit": 100}


@pytest.mark.parametrize(
    ("of_policy", "of_model", "changes", "model"),
    [
        (None, (), {}, "middle"),  # the cheapest of the policy's others
        (("dear",), ("middle",), {}, "dear"),  # the policy's fallbacks come first
        (None, ("dear",), {}, "dear"),  # then the model's
        (("dear",), (), {"dear": SMALL}, "middle"),
    ],
)
def test_a_request_that_is_too_long_goes_to_the_first_that_holds_it(
    of_policy: tuple[str, ...] | None, of_model: tuple[str, ...], changes: dict[str, Any], model: str
) -> None:
    policy = dataclasses.replace(THREE_TIERS, fallbacks=of_policy)
    planned = plan("cheap", policy, prompt(LONG), models(cheap={**SMALL, "fallbacks": of_model}, **changes))
    assert (planned.model, planned.misfit) == (model, "context")
    assert planned.model not in planned.fallbacks
    assert "cheap" not in planned.fallbacks


def test_a_request_for_tools_goes_to_a_model_that_has_them() -> None:
    planned = plan("cheap", TIERS, prompt(**TOOLS), models(cheap={"supports": ("vision",)}))
    assert (planned.model, planned.misfit) == ("dear", "capability")


def test_when_none_fits_the_error_says_how_long_it_is_and_who_would() -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        plan("middle", FIXED, prompt(LONG, max_tokens=50), models(middle=SMALL, cheap=SMALL))
    error = json_error(caught.value)
    assert error == (400, "context_length_exceeded", "messages")
    assert str(caught.value) == (
        "The request needs about 1,054 tokens, 50 of them for the answer: too many for every model of policy 'fixed'. "
        "Models that can take it: dear, unpriced."
    )


def test_a_client_s_own_choice_is_not_changed() -> None:
    with pytest.raises(UnsupportedCapability) as caught:
        plan("cheap", None, prompt(IMAGE), models(**{name: {"supports": ()} for name in MODELS}))
    assert json_error(caught.value) == (400, "unsupported_capability", None)
    assert str(caught.value) == (
        "The request needs vision, which is beyond model 'cheap'. No model on offer can take it."
    )


def json_error(error: ContextLengthExceeded | UnsupportedCapability) -> tuple[int, str, str | None]:
    return error.status, error.code, error.param
