"""Which policy, threshold or model a chat request asks for. Pure.

A request may say it in five places: the `nim-llm-router` object, `model` ("auto", a policy, "policy@threshold" or a
model), and the headers `x-router-policy` and `x-router-threshold`. Places that contradict each other are an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from router.clients.permission import AUTO, Offer
from router.decide.decider import Decision, manual
from router.decide.policy import candidates, with_threshold
from router.errors import InvalidRequest, ModelNotFound, PolicyNotFound
from router.settings import LabelPolicy, PolicySettings, Settings, TaskMapPolicy

NIM = "nim-llm-router"


class _Claim(msgspec.Struct, frozen=True):
    """What one place of the request asks for."""

    where: str
    value: Any


def select(
    settings: Settings, offer: Offer, fields: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]
) -> PolicySettings | Decision:
    """Return the policy to decide by, with the request's threshold in it, or the decision the client has taken.

    Raises InvalidRequest (a wrong type, a conflict: both places are named), PolicyNotFound or ModelNotFound, and
    PolicyNotAllowed or ModelNotAllowed for what is not on offer. No error names anything else that is not.
    """
    _refuse_addresses(fields)
    nim = _nim_object(fields)
    model = _model_field(fields, required=nim is None)
    policies, thresholds = _header_claims(headers)
    if nim is not None:
        policies.insert(0, _Claim(f"{NIM}.policy", nim["policy"]))
        if nim.get("threshold") is not None:
            thresholds.insert(0, _Claim(f"{NIM}.threshold", nim["threshold"]))
    pinned = None
    if model is not None:
        name, at, suffix = model.rpartition("@")
        if at and (name in settings.policies or name == AUTO):
            policies.append(_Claim("model", name))
            thresholds.append(_Claim("model", suffix))
        elif model in settings.policies or model == AUTO:
            policies.append(_Claim("model", model))
        elif nim is None:  # NVIDIA's router overwrites `model`, so beside its object it may be anything
            pinned = _configured_model(settings, offer, model)
    if pinned is not None:
        for claim in (*policies, *thresholds):
            raise InvalidRequest(
                f"'model' asks for the model '{pinned}' itself and '{claim.where}' for '{_short(claim.value)}'. "
                "Send one of them.",
                param="model",
            )
        offer.check_model(pinned)
        return manual(pinned)
    if not policies:
        raise InvalidRequest(
            f"'model' is missing. Send a policy ({_names(offer.policies)}) or a model ({_names(offer.models)}).",
            param="model",
        )
    policy = _policy(settings, offer, policies)
    offer.check_policy(policy.name)
    if nim is not None and nim.get("routing_strategy") == "manual":
        choice = _manual_choice(policy, nim.get("model"))
        offer.check_model(choice.model)
        return choice
    threshold = _threshold(thresholds)
    return policy if threshold is None else with_threshold(policy, threshold)


def _refuse_addresses(fields: Mapping[str, Any]) -> None:
    for name in ("api_base", "base_url"):
        if name in fields:
            raise InvalidRequest(f"'{name}' cannot be chosen by a request: upstreams are configured.", param=name)


def _nim_object(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    nim = fields.get(NIM)
    if nim is None:
        return None
    if not isinstance(nim, dict):
        raise InvalidRequest(f'\'{NIM}\' must be an object such as {{"policy": "..."}}.', param=NIM)
    if not isinstance(nim.get("policy"), str):
        raise InvalidRequest(f"'{NIM}.policy' must be the name of a policy.", param=f"{NIM}.policy")
    if nim.get("routing_strategy") not in (None, "triton", "manual"):
        raise InvalidRequest(f"'{NIM}.routing_strategy' must be 'triton' or 'manual'.", param=f"{NIM}.routing_strategy")
    return nim


def _model_field(fields: Mapping[str, Any], *, required: bool) -> str | None:
    model = fields.get("model")
    if model is None or isinstance(model, str):
        return model or None
    if not required:
        return None
    raise InvalidRequest("'model' must be a string.", param="model")


def _header_claims(headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[_Claim], list[_Claim]]:
    policies, thresholds = [], []
    for name, value in headers:
        if name == b"x-router-policy":
            policies.append(_Claim("x-router-policy", value.decode("latin-1").strip()))
        elif name == b"x-router-threshold":
            thresholds.append(_Claim("x-router-threshold", value.decode("latin-1").strip()))
    return policies, thresholds


def _configured_model(settings: Settings, offer: Offer, name: str) -> str:
    if name in settings.models:
        return name
    raise ModelNotFound(
        f"Model '{_short(name)}' is neither a policy nor a configured model. "
        f"Policies: {_names(offer.policies)}. Models: {_names(offer.models)}.",
        param="model",
    )


def _policy(settings: Settings, offer: Offer, claims: list[_Claim]) -> PolicySettings:
    """Return the one policy that all claims agree on; "auto" agrees with any."""
    for claim in claims:
        if claim.value != AUTO and claim.value not in settings.policies:
            raise PolicyNotFound(
                f"Policy '{_short(claim.value)}' not found. Policies: {_names(offer.policies)}.",
                param=claim.where,
            )
    named: _Claim | None = None
    for claim in claims:
        if claim.value != AUTO:
            if named is not None and claim.value != named.value:
                raise _conflict(named, claim)
            named = named or claim
    return settings.policies[settings.default_policy if named is None else named.value]


def _threshold(claims: list[_Claim]) -> float | None:
    if not claims:
        return None
    values = [_threshold_value(claim) for claim in claims]
    for other, value in zip(claims[1:], values[1:], strict=True):
        if value != values[0]:
            raise _conflict(claims[0], other)
    return values[0]


def _threshold_value(claim: _Claim) -> float:
    try:
        value = float(claim.value) if not isinstance(claim.value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not -1.0 <= value <= 1.0:
        raise InvalidRequest(
            f"The threshold in '{claim.where}' must be a number from -1 to 1, not '{_short(claim.value)}'.",
            param=claim.where,
        )
    return value


def _conflict(one: _Claim, other: _Claim) -> InvalidRequest:
    return InvalidRequest(
        f"'{one.where}' asks for '{_short(one.value)}' and '{other.where}' for '{_short(other.value)}'. "
        "Send one of them, or the same in both.",
        param=other.where,
    )


def _manual_choice(policy: PolicySettings, wanted: Any) -> Decision:  # noqa: ANN401 - any JSON
    """Return NVIDIA's manual choice: `model` is a label of the policy, or one of its models."""
    by_name = {model: model for model in candidates(policy)}
    if isinstance(policy, LabelPolicy):
        by_name |= dict(policy.llms)
    elif isinstance(policy, TaskMapPolicy):
        by_name |= dict(policy.models)
    if not isinstance(wanted, str):
        raise InvalidRequest(
            f"'{NIM}.model' must name one of {_names(by_name)} when the strategy is 'manual'.", param=f"{NIM}.model"
        )
    if wanted not in by_name:
        raise ModelNotFound(
            f"Model '{_short(wanted)}' not found in policy '{policy.name}'. Allowed: {_names(by_name)}.",
            param=f"{NIM}.model",
        )
    return manual(by_name[wanted], wanted, policy.name)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _short(value: object) -> str:
    """Quote a client's value in an error without echoing a whole prompt that was put in the wrong place."""
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
