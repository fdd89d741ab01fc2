"""POST /v1/route: the decision without the answer, for one chat body or for up to 256 prompts."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from router.clients.permission import AUTO, Offer, Offers
from router.decide.decider import Decider, Decision
from router.decide.policy import candidates
from router.decide.prompt import Prompt
from router.errors import BodyTimeout, InvalidRequest
from router.http.asgi import CLIENT, Interruption
from router.http.body import JSONBody, parse_body, read_body
from router.http.openapi import errors
from router.http.selection import select
from router.settings import PolicySettings, Settings

MAX_INPUTS = 256


def route_api(settings: Settings, decider: Decider) -> APIRouter:
    """Return the endpoint as a FastAPI router."""
    api = APIRouter(tags=["routing"])
    offers = Offers(settings)

    @api.post("/v1/route", openapi_extra=_DESCRIPTION, responses=errors(400, 401, 403, 404, 408, 413, 415, 429, 503))
    async def route(request: Request) -> JSONResponse:
        """Decide which model would answer, and say everything that led to it. Nothing is forwarded or billed.

        Send a chat body as you would to /v1/chat/completions, or `{"inputs": ["prompt", ...]}` with an optional
        `model` that names the policy.
        """
        limits = settings.server
        with Interruption(request.scope) as interruption:
            interruption.limit(limits.body_timeout_s, partial(BodyTimeout.after, limits.body_timeout_s))
            body = parse_body(await read_body(request.scope, request.receive, limits.max_body_bytes))
        several = "inputs" in body.fields
        fields = {"model": AUTO, **body.fields} if several else body.fields
        offer = offers.to(request.scope.get(CLIENT))
        chosen = select(settings, offer, fields, request.scope["headers"])
        prompts = [Prompt.of_text(text) for text in _inputs(body)] if several else [Prompt.of_chat(body.fields)]
        described = await _decide_all(settings, decider, chosen, prompts, offer)
        return JSONResponse({"object": "list", "data": described} if several else described[0])

    return api


def _inputs(body: JSONBody) -> list[str]:
    inputs = body.fields["inputs"]
    if "messages" in body.fields:
        raise InvalidRequest("Send 'messages' (one chat) or 'inputs' (prompts), not both.", param="inputs")
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MAX_INPUTS:
        raise InvalidRequest(f"'inputs' must be an array of 1 to {MAX_INPUTS} prompts.", param="inputs")
    for i, text in enumerate(inputs):
        if not isinstance(text, str):
            raise InvalidRequest(f"'inputs[{i}]' must be a string.", param=f"inputs[{i}]")
    return inputs


async def _decide_all(
    settings: Settings, decider: Decider, chosen: PolicySettings | Decision, prompts: list[Prompt], offer: Offer
) -> list[dict[str, Any]]:
    """Decide for all prompts, a batch at a time so that the last one's deadline does not pay for the first."""
    models = (chosen.model,) if isinstance(chosen, Decision) else candidates(chosen)
    described = []
    size = settings.triton.max_batch_size
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        decisions = await asyncio.gather(*(decider.decide(chosen, prompt, offer.models) for prompt in batch))
        described += [
            _described(decision, models, decider, prompt) for decision, prompt in zip(decisions, batch, strict=True)
        ]
    return described


def _described(decision: Decision, models: tuple[str, ...], decider: Decider, prompt: Prompt) -> dict[str, Any]:
    costs = {model: decider.expected_cost(model, prompt) for model in dict.fromkeys([*models, decision.model])}
    return {
        "object": "route.decision",
        "model": decision.model,
        "policy": decision.policy,
        "reason": decision.reason,
        "source": decision.source,
        "fallback_reason": decision.fallback_reason,
        "score": decision.score,
        "label": decision.label,
        "classifier_version": decision.classifier_version,
        "turns": [classification.described() for classification in decision.classifications],
        "fallbacks": list(decision.fallbacks),
        "expected_cost_dollars": costs,
    }


_DESCRIPTION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"$ref": "#/components/schemas/ChatRequest"},
                        {
                            "type": "object",
                            "required": ["inputs"],
                            "properties": {
                                "inputs": {
                                    "type": "array",
                                    "items": {"type": "string"},
                                    "minItems": 1,
                                    "maxItems": MAX_INPUTS,
                                },
                                "model": {"type": "string", "default": "auto"},
                            },
                        },
                    ]
                }
            }
        },
    }
}
