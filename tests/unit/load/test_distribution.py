"""Quantiles to 1%, whatever is merged and sent."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.distribution import Distribution

VALUES = st.lists(st.floats(2e-6, 1e4), min_size=1, max_size=200)


def of(values):
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    return distribution


@given(VALUES, st.floats(0.0, 1.0))
def test_a_quantile_is_right_to_one_percent(values, q):
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert of(values).quantile(q) == pytest.approx(exact, rel=0.011)


@given(VALUES, VALUES)
def test_merging_is_counting_all_in_one(one, other):
    merged = of(one)
    merged.merge(of(other))
    together = of(one + other)
    assert merged.to_wire()["buckets"] == together.to_wire()["buckets"]
    assert merged.count == len(one) + len(other)
    assert merged.maximum == max(one + other)
    assert merged.mean == pytest.approx(together.mean)


@given(VALUES, st.floats(1e-5, 1e3))
def test_values_clear_of_a_bound_are_counted_exactly(values, bound):
    clear = [value for value in values if not 0.97 * bound < value < 1.03 * bound]
    assert of(clear).at_most(bound) == sum(value <= bound for value in clear)


@given(VALUES)
def test_a_message_keeps_everything(values):
    sent = json.loads(json.dumps(of(values).to_wire()))
    received = Distribution.from_wire(sent)
    assert received.to_wire() == of(values).to_wire()
    assert received.count == len(values)


def test_without_values_nothing_is_claimed():
    empty = Distribution()
    assert (empty.mean, empty.quantile(0.5), empty.at_most(1.0)) == (None, None, 0)


def test_zero_is_a_value():
    distribution = of([0.0, 0.0, 5.0])
    assert distribution.quantile(0.5) <= 1e-6
    assert distribution.at_most(0.001) == 2
