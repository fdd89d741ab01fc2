"""From tokens to dollars: known, unknown, and what the dearest model would have cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.settings import ModelSettings, Price
from router.upstream.sse import Usage
from router.upstream.usage import baseline_dollars, dollars
from tests.unit.router.examples import MODELS

CHEAP, MIDDLE, DEAR, UNPRICED = (MODELS[name] for name in ("cheap", "middle", "dear", "unpriced"))


def test_both_directions_are_priced_per_million() -> None:
    assert dollars(Usage(1_000_000, 0), Price(1.5, 6.0, "configuration")) == pytest.approx(1.5)
    assert dollars(Usage(0, 1_000_000), Price(1.5, 6.0, "configuration")) == pytest.approx(6.0)
    assert dollars(Usage(2_000, 500), Price(1.5, 6.0, "configuration")) == pytest.approx(0.006)


def test_free_is_zero_and_unknown_is_not() -> None:
    assert dollars(Usage(5, 5), Price(0.0, 0.0, "configuration")) == 0.0
    assert dollars(Usage(5, 5), None) is None


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([CHEAP, MIDDLE, DEAR], 0.010 + 0.020),
        ([DEAR, CHEAP], 0.010 + 0.020),
        ([CHEAP], 0.001 + 0.001),
        ([CHEAP, UNPRICED], None),
        ([UNPRICED, DEAR], None),
        ([], None),
    ],
)
def test_the_baseline_is_the_dearest_candidate_s_cost_or_unknown(
    models: list[ModelSettings], expected: float | None
) -> None:
    baseline = baseline_dollars(Usage(1000, 500), [model.price for model in models])
    assert baseline == (None if expected is None else pytest.approx(expected))


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_no_candidate_costs_more_than_the_baseline(prompt: int, completion: int) -> None:
    usage = Usage(prompt, completion)
    costs = [dollars(usage, model.price) for model in (CHEAP, MIDDLE, DEAR)]
    baseline = baseline_dollars(usage, (CHEAP.price, MIDDLE.price, DEAR.price))
    assert baseline is not None
    assert all(cost is not None and 0 <= cost <= baseline for cost in costs)
