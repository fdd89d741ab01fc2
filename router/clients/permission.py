"""What a client may name, and so what an error may tell it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.errors import ModelNotAllowed, PolicyNotAllowed
from router.settings import ClientSettings, Settings

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Offer:
    """The policies and models that somebody may name; "auto" is among the policies where its own is."""

    policies: tuple[str, ...]
    models: tuple[str, ...]

    def check_policy(self, name: str) -> None:
        """Raise PolicyNotAllowed for a configured policy that is not on offer."""
        if name not in self.policies:
            raise PolicyNotAllowed(_explained("policy", name, self.policies), param="model")

    def check_model(self, name: str) -> None:
        """Raise ModelNotAllowed for a configured model that is not on offer.

        It is for models that a request names: one that a policy chooses needs no permission of its own.
        """
        if name not in self.models:
            raise ModelNotAllowed(_explained("model", name, self.models), param="model")


class Offers:
    """The offer to everybody: all names while no clients are configured, else each client's own."""

    def __init__(self, settings: Settings) -> None:
        self._default_policy = settings.default_policy
        self._all = self._offer(settings.policies, settings.models)
        self._own = {one.name: self._offer(one.policies, one.models) for one in settings.clients.values()}

    def to(self, client: ClientSettings | None) -> Offer:
        """Return what this client is offered, or what is when there are no clients."""
        return self._all if client is None else self._own[client.name]

    def _offer(self, policies: Iterable[str], models: Iterable[str]) -> Offer:
        named = tuple(policies)
        return Offer((AUTO, *named) if self._default_policy in named else named, tuple(models))


def _explained(what: str, name: str, allowed: Iterable[str]) -> str:
    return f"This key may not use the {what} '{name}'. It may use: {', '.join(allowed) or 'none'}."
