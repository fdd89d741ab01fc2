"""What the models cost, as the router lists them under GET /v1/models."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from loadtest.load.tally import Tally


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input: float
    output: float

    def dollars(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what these tokens cost."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class Bill:
    """Dollars: spent, by model, and had the dearest model answered with the same tokens. None: a price is unknown."""

    by_model: Mapping[str, float | None]
    spent: float | None
    baseline: float | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models behind one name, their prices, and the dearest of them: what the run is compared with."""

    prices: Mapping[str, Price | None]
    dearest: str | None = None
    names: tuple[str, ...] = ()  # everything that a request's model may say

    @classmethod
    def of(cls, listing: Mapping[str, Any], model: str) -> Self:
        """Read a /v1/models answer for requests to `model`: a policy's candidates, else every priced model."""
        entries = {entry["id"]: entry for entry in listing.get("data", ())}
        prices = {name: _price(entry) for name, entry in entries.items() if entry.get("kind", "model") == "model"}
        entry = entries.get(model.partition("@")[0], {})
        entry = entries.get(entry.get("policy", ""), entry)
        candidates = entry.get("models") or list(prices)
        known = [(price.output, price.input, name) for name in candidates if (price := prices.get(name))]
        return cls(prices, max(known)[2] if known and len(known) == len(candidates) else None, tuple(entries))

    @classmethod
    def fetch(cls, host: str, api_key: str, model: str) -> Self:
        """Ask the server. Raises `OSError` when it does not answer, `ValueError` for what is not a list of models."""
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        request = urllib.request.Request(f"{host}/v1/models", headers=headers)  # noqa: S310 - http(s), checked in the settings
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
            listing = json.load(answer)
        if not isinstance(listing, dict):
            raise ValueError(f"{host}/v1/models did not answer a list of models")
        return cls.of(listing, model)

    def bill(self, tally: Tally) -> Bill:
        """Return what the tokens of a tally cost."""
        used = {
            model: (tally.total("tokens", model, "prompt"), tally.total("tokens", model, "completion"))
            for model in tally.by_label("tokens")
        }
        by_model = {model: price.dollars(*used[model]) if (price := self.prices.get(model)) else None for model in used}
        known = [cost for cost in by_model.values() if cost is not None]
        dearest = self.prices.get(self.dearest) if self.dearest else None
        return Bill(
            by_model=by_model,
            spent=sum(known) if known and len(known) == len(by_model) else None,
            baseline=sum(dearest.dollars(*tokens) for tokens in used.values()) if dearest and used else None,
        )


def _price(entry: Mapping[str, Any]) -> Price | None:
    price = entry.get("price")
    return Price(price["input"], price["output"]) if price else None
