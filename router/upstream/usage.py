"""From tokens to dollars. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from router.settings import Price
from router.upstream.sse import Usage


def dollars(usage: Usage, price: Price | None) -> float | None:
    """Return what the tokens cost at this price, None when it is unknown."""
    if price is None:
        return None
    return (usage.prompt_tokens * price.input_per_million + usage.completion_tokens * price.output_per_million) / 1e6


def baseline_dollars(usage: Usage, prices: Iterable[Price | None]) -> float | None:
    """Return what the same tokens cost at the dearest of `prices`, None when one of them is unknown."""
    dearest = None
    for price in prices:
        cost = dollars(usage, price)
        if cost is None:
            return None
        dearest = cost if dearest is None else max(dearest, cost)
    return dearest
