"""Prices from the packaged price list: known providers have one, everything else stays unknown."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from genai_prices import data_snapshot
from genai_prices.types import ModelPrice, TieredPrices
from genai_prices.types import Tier as PriceTier

from router.settings.prices import price_of

OPENAI = "https://api.openai.com/v1"


def test_a_known_model_has_dollars_per_million_tokens() -> None:
    price = price_of("gpt-4o-mini", OPENAI)
    assert price is not None
    assert (price.input_per_million, price.output_per_million) == (0.15, 0.6)
    assert price.source == f"genai-prices {version('genai-prices')}"


@pytest.mark.parametrize(
    ("model", "api_base"),
    [
        ("gpt-4o-mini", "http://127.0.0.1:9101/v1"),  # the name alone says nothing about the price
        ("meta/llama-3.1-8b-instruct", "https://integrate.api.nvidia.com/v1"),
        ("no-such-model", OPENAI),
        ("", ""),
    ],
)
def test_an_unknown_price_stays_unknown(model: str, api_base: str) -> None:
    assert price_of(model, api_base) is None


def test_a_price_for_input_only_is_unknown() -> None:
    assert price_of("text-embedding-3-small", OPENAI) is None


def test_prices_that_rise_with_the_prompt_give_their_lowest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Snapshot:
        def find_provider_model(self, *_: object) -> tuple[object, object]:
            tiered = TieredPrices(Decimal("1.25"), [PriceTier(200_000, Decimal("2.5"))])
            prices = ModelPrice(input_mtok=tiered, output_mtok=Decimal(10))

            def get_prices(when: datetime) -> ModelPrice:
                assert when.tzinfo is not None
                return prices

            return None, SimpleNamespace(get_prices=get_prices)

    monkeypatch.setattr(data_snapshot, "get_snapshot", Snapshot)
    price = price_of("any", OPENAI)
    assert price is not None
    assert (price.input_per_million, price.output_per_million) == (1.25, 10.0)


def test_the_price_list_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, router.settings; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
