"""GET /v1/models: policies and models in OpenAI's shape, with what they cost."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from router.clients.permission import AUTO, Offers
from router.decide.policy import candidates
from router.errors import ModelNotFound
from router.http.asgi import CLIENT
from router.http.openapi import errors
from router.settings import ModelSettings, PolicySettings, Settings


def models_api(settings: Settings) -> APIRouter:
    """Return the endpoints as a FastAPI router."""
    api = APIRouter(tags=["models"])
    started = int(time.time())
    entries = [_entry(AUTO, "policy", started, policy=settings.default_policy)]
    entries += [_policy_entry(policy, started) for policy in settings.policies.values()]
    entries += [_model_entry(model, started) for model in settings.models.values()]
    by_id = {entry["id"]: entry for entry in entries}
    offers = Offers(settings)

    def allowed(request: Request) -> dict[str, dict[str, Any]]:
        offer = offers.to(request.scope.get(CLIENT))
        return {name: entry for name, entry in by_id.items() if name in offer.policies or name in offer.models}

    @api.get("/v1/models", responses=errors(401))
    async def list_models(request: Request) -> dict[str, Any]:
        """List everything that `model` may say: "auto", the policies and the models, as far as the key may use them."""
        return {"object": "list", "data": list(allowed(request).values())}

    @api.get("/v1/models/{name:path}", responses=errors(401, 404))
    async def get_model(name: str, request: Request) -> dict[str, Any]:
        """Return one entry of the list."""
        listed = allowed(request)
        if name not in listed:
            raise ModelNotFound(f"'{name[:80]}' is not among: {', '.join(listed)}.", param="model")
        return listed[name]

    return api


def _entry(name: str, kind: str, created: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"id": name, "object": "model", "created": created, "owned_by": "llm-router", "kind": kind, **more}


def _policy_entry(policy: PolicySettings, created: int) -> dict[str, Any]:
    return _entry(policy.name, "policy", created, models=list(candidates(policy)), default_model=policy.default_model)


def _model_entry(model: ModelSettings, created: int) -> dict[str, Any]:
    price = None
    if model.price is not None:
        price = {
            "input": model.price.input_per_million,
            "output": model.price.output_per_million,
            "unit": "dollars per million tokens",
            "source": model.price.source,
        }
    return _entry(model.name, "model", created, context_limit=model.context_limit, price=price)
