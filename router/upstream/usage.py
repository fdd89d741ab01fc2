"""From tokens to dollars. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from router.settings import ModelSettings, Price
from router.upstream.sse import Usage


def dollars(usage: Usage, price: Price | None) -> float | None:
    """Return what the tokens cost at this price, None when it is unknown."""
    if price is None:
        return None
    return (usage.prompt_tokens * price.input_per_million + usage.completion_tokens * price.output_per_million) / 1e6


def baseline_dollars(usage: Usage, models: Iterable[ModelSettings]) -> float | None:
    """Return what the same tokens cost at the dearest of `models`, None when one of the prices is unknown."""
    costs = [dollars(usage, model.price) for model in models]
    known = [cost for cost in costs if cost is not None]
    return max(known) if known and len(known) == len(costs) else None
