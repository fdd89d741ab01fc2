"""Which models can take a request at all: long enough for it, and able to do what it asks for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import msgspec

from router.decide.policy import candidates
from router.decide.prompt import Prompt
from router.errors import ClientError, ContextLengthExceeded, UnsupportedCapability
from router.settings import ModelSettings, PolicySettings

Misfit = Literal["context", "capability"]
Models = Mapping[str, ModelSettings]


class Plan(msgspec.Struct, frozen=True):
    """The model to ask, and those that stand in for it; `misfit` is why it is another than the chosen one."""

    model: str
    fallbacks: tuple[str, ...]
    misfit: Misfit | None


def plan(
    chosen: str, policy: PolicySettings | None, prompt: Prompt, models: Models, nameable: Collection[str] | None = None
) -> Plan:
    """Return the first model that can take the prompt, and its fallbacks that can.

    The chosen one comes first, then the policy's fallbacks, its own, and the policy's other models from the cheapest
    to the dearest. `policy` None is for a client's own choice, which is not changed. Raises ContextLengthExceeded or
    UnsupportedCapability when no model fits; of those that would, the error names the `nameable` ones (None: all).
    """
    unmet = misfit(models[chosen], prompt)
    model = chosen
    if unmet is not None:
        others = _others(chosen, policy, models) if policy is not None else iter(())
        able = next((name for name in others if misfit(models[name], prompt) is None), None)
        if able is None:
            advised = models if nameable is None else nameable
            raise _refusal(unmet, chosen, policy, prompt, [m for m in advised if misfit(models[m], prompt) is None])
        model = able
    stand_ins = models[model].fallbacks
    if policy is not None and policy.fallbacks is not None:
        stand_ins = policy.fallbacks
    if not stand_ins:
        return Plan(model, (), unmet)
    return Plan(model, tuple(one for one in stand_ins if one != model and misfit(models[one], prompt) is None), unmet)


def misfit(model: ModelSettings, prompt: Prompt) -> Misfit | None:
    """Say why a model cannot take a prompt, None when nothing that is known speaks against it."""
    if model.supports is not None and not prompt.needs <= set(model.supports):
        return "capability"
    if model.context_limit is not None and needed_tokens(prompt) > model.context_limit:
        return "context"
    return None


def needed_tokens(prompt: Prompt) -> int:
    """Estimate the tokens of the prompt, and add those that the request sets aside for the answer."""
    return prompt.estimated_tokens + (prompt.max_output_tokens or 0)


def _others(chosen: str, policy: PolicySettings, models: Models) -> Iterator[str]:
    yield from policy.fallbacks or ()
    yield from models[chosen].fallbacks
    yield from sorted(candidates(policy), key=lambda name: _price(models[name]))


def _price(model: ModelSettings) -> float:
    return float("inf") if model.price is None else model.price.input_per_million + model.price.output_per_million


def _refusal(
    unmet: Misfit, chosen: str, policy: PolicySettings | None, prompt: Prompt, able: Collection[str]
) -> ClientError:
    asked = f"model '{chosen}'" if policy is None else f"every model of policy '{policy.name}'"
    advice = f"Models that can take it: {', '.join(able)}." if able else "No model on offer can take it."
    if unmet == "context":
        answer = f", {prompt.max_output_tokens:,} of them for the answer" if prompt.max_output_tokens else ""
        message = f"The request needs about {needed_tokens(prompt):,} tokens{answer}: too many for {asked}. {advice}"
        return ContextLengthExceeded(message, param="messages")
    needs = ", ".join(sorted(prompt.needs))
    return UnsupportedCapability(f"The request needs {needs}, which is beyond {asked}. {advice}")
