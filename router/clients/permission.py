"""What a client may name. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from router.decide.decider import NO_POLICY, Decision
from router.errors import ModelNotAllowed, PolicyNotAllowed
from router.settings import ClientSettings, PolicySettings


def permit(client: ClientSettings | None, chosen: PolicySettings | Decision) -> None:
    """Raise PolicyNotAllowed or ModelNotAllowed unless the client may use the policy, or the model that it named.

    Without clients everything is allowed. A model that a policy chooses needs no permission of its own.
    """
    if client is None:
        return
    policy = chosen.policy if isinstance(chosen, Decision) else chosen.name
    if policy != NO_POLICY and policy not in client.policies:
        raise PolicyNotAllowed(_explained("policy", policy, client.policies), param="model")
    if isinstance(chosen, Decision) and chosen.model not in client.models:
        raise ModelNotAllowed(_explained("model", chosen.model, client.models), param="model")


def _explained(what: str, name: str, allowed: Iterable[str]) -> str:
    return f"This key may not use the {what} '{name}'. It may use: {', '.join(allowed) or 'none'}."
