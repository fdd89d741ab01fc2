"""Prices that the configuration leaves out, from the data inside the `genai-prices` package. No network."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version

from router.settings.types import Price


def price_of(model_id: str, api_base: str) -> Price | None:
    """Return the list price of `model_id` at the provider of `api_base`, in dollars per million tokens.

    None when the provider or the model is unknown: the same weights cost something else at every host, so the
    model's name alone says nothing. Of prices that grow with the prompt's length this is the lowest step, of
    prices that change with the date or hour the one of now.
    """
    from genai_prices import (
        data_snapshot,
    )  # here: it takes 0.2 s, which a file with all its prices need not wait
    from genai_prices.types import TieredPrices

    try:
        _, model = data_snapshot.get_snapshot().find_provider_model(model_id, None, None, api_base)
    except LookupError:
        return None
    prices = model.get_prices(datetime.now(tz=UTC))

    def base(price: Decimal | TieredPrices | None) -> float | None:
        amount = price.base if isinstance(price, TieredPrices) else price
        return None if amount is None else float(amount)

    per_input, per_output = base(prices.input_mtok), base(prices.output_mtok)
    if per_input is None or per_output is None:
        return None
    return Price(per_input, per_output, f"genai-prices {version('genai-prices')}")
