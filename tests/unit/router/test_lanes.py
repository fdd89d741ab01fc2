"""Who gets which version: evenly spread, steady, and the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.decide.lanes import Lane, Lanes, place_of
from router.decide.prompt import Prompt
from router.settings.shares import check_shares, read_shares

TEXTS = [f"prompt {number}" for number in range(4000)]


def versions(shares: Mapping[str, float], prompts: list[Prompt]) -> list[str]:
    """The version of each prompt; the lanes are just names here."""
    lanes = Lanes([(percent, cast("Lane", version)) for version, percent in shares.items() if percent > 0])
    return [cast("Any", lanes.lane_of(prompt)) for prompt in prompts]


def of_texts(shares: Mapping[str, float]) -> list[str]:
    return versions(shares, [Prompt.of_text(text) for text in TEXTS])


@pytest.mark.parametrize("share", [1, 5, 25, 50, 99])
def test_a_share_is_what_it_says(share: float) -> None:
    assert of_texts({"1": 100 - share, "2": share}).count("2") / 40 == pytest.approx(share, abs=2)


def test_who_has_the_new_version_keeps_it_while_its_share_grows() -> None:
    steps = [of_texts({"1": 100 - share, "2": share}) for share in (0, 5, 25, 50, 100)]
    for before, after in pairwise(steps):
        assert all(new == "2" for old, new in zip(before, after, strict=True) if old == "2")
    assert set(steps[-1]) == {"2"}


def test_a_conversation_stays_where_its_first_turn_went() -> None:
    shares = {"1": 50, "2": 50}

    def turns(*texts: str) -> Prompt:
        system = {"role": "system", "content": "You are terse."}
        return Prompt([system, *({"role": "user", "content": text} for text in texts)])

    for text in TEXTS[:100]:
        assert len(set(versions(shares, [turns(text), turns(text, "more"), Prompt.of_text(text)]))) == 1


def test_the_place_of_a_text_is_the_same_in_every_process() -> None:
    assert place_of("prompt") == pytest.approx(98.53387764574286)


@given(st.text())
def test_every_text_has_a_place(text: str) -> None:
    assert 0 <= place_of(text.encode("utf-8", "ignore").decode()) < 100


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("1=90, 2=10", (("1", 90.0), ("2", 10.0))),
        ("1=0 2=100", (("1", 0.0), ("2", 100.0))),
        ("1=99.5,2=0.5", (("1", 99.5), ("2", 0.5))),
        ("3", (("3", 100.0),)),
    ],
)
def test_shares_are_read_in_their_order(text: str, shares: tuple[tuple[str, float], ...]) -> None:
    assert check_shares(text) is None
    assert read_shares(text) == shares


@pytest.mark.parametrize("text", ["", "1=90", "1=90, 2=20", "1=50, 1=50", "0=100", "latest", "1:90 2:10", "1=-5 2=105"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    assert "together 100" in str(check_shares(text))
