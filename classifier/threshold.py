"""The threshold of a policy from a sample of one's own prompts: chosen on one half, and judged on the other."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifier.bootstrap import Graded, as_numbers
from classifier.errors import DataError
from classifier.groups import near_duplicate_groups
from classifier.metrics import Floats, Interval
from classifier.scored import Prices, Scored

LEAST_ROWS: Final = 100  # fewer say too little about any target
STEPS: Final = 200  # shares of strong calls that are tried
DECIMALS: Final = 6

Choose = Callable[[Floats, Scored], float]
"""From a score [n] and the prompts it belongs to, the lowest score that goes to the strong model."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold, and what it does on held-out prompts."""

    score: str
    threshold: float
    held_out: int
    expected: dict[str, Interval]  # strong_share; with outcomes also quality and quality_share; with prices dollars

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "score": self.score,
            "threshold": self.threshold,
            "held_out_rows": self.held_out,
            "expected": as_numbers(self.expected),
        }


def for_strong_share(share: float) -> Choose:
    """Send this share of the prompts, 0..1, to the strong model."""
    return lambda score, _: _threshold_at(np.sort(score)[::-1], round(share * len(score)))


def for_quality(share: float, confidence: float) -> Choose:
    """Reach this share of the always strong model's quality, with this confidence, at the fewest strong calls.

    From all strong downwards, as long as a one-sided test says that the quality is enough. Each step is only taken
    when the one before held, so the confidence is that of the whole search.
    """
    z = NormalDist().inv_cdf(confidence)

    def choose(score: Floats, sample: Scored) -> float:
        graded = sample.graded()
        _check_gap(graded)
        order = np.argsort(-score, kind="stable")
        weak, strong = graded.weak[order], graded.strong[order]
        n = len(score)
        enough = n
        for strong_calls in np.linspace(n, 0, STEPS + 1).round().astype(int).tolist():
            surplus = np.where(np.arange(n) < strong_calls, strong, weak) - share * strong
            if surplus.mean() - z * surplus.std(ddof=1) / np.sqrt(n) < 0:
                break
            enough = strong_calls
        return _threshold_at(score[order], enough)

    return choose


def for_cost(dollars_per_1k: float, prices: Prices) -> Choose:
    """Spend at most so many dollars on a thousand prompts, with as many strong calls as that allows."""

    def choose(score: Floats, sample: Scored) -> float:
        order = np.argsort(-score, kind="stable")
        cheap, dear = (dollars[order] for dollars in sample.dollars(prices))
        spent = (cheap.sum() + np.concatenate([[0.0], np.cumsum(dear - cheap)])) * 1000 / len(score)
        ends = np.append(np.flatnonzero(np.diff(score[order])) + 1, len(score))  # a threshold cannot part equal scores
        within = np.array([calls for calls in (0, *ends.tolist()) if spent[calls] <= dollars_per_1k])
        if not len(within):
            raise DataError(
                f"always the cheap model costs ${spent[0]:.4f} a thousand prompts already, allowed are "
                f"${dollars_per_1k:g}: raise --max-cost-per-1k or take a cheaper model"
            )
        return _threshold_at(score[order], int(within[-1]))

    return choose


def calibrate(
    sample: Scored, name: str, choose: Choose, *, prices: Prices | None = None, rounds: int = 500, seed: int = 0
) -> Calibrated:
    """Choose on one half of the prompts and tell what to expect from the other; near-duplicates stay together.

    Raises DataError when the sample lacks the score or is too small.
    """
    if name not in sample.scores:
        raise DataError(f"the rows have no score {name!r}; there are {', '.join(sample.scores)}")
    if len(sample) < LEAST_ROWS:
        raise DataError(f"{len(sample)} rows can be used, at least {LEAST_ROWS} are needed: give more prompts")
    chosen = _half(sample, seed)
    fitted, held_out = sample.rows(chosen), sample.rows(~chosen)
    threshold = round(choose(fitted.scores[name], fitted), DECIMALS)
    expected = _expected(held_out, held_out.scores[name] >= threshold, prices, rounds, seed)
    return Calibrated(name, threshold, len(held_out), expected)


def _half(sample: Scored, seed: int) -> NDArray[np.bool_]:
    groups = near_duplicate_groups(sample.prompts) if all(sample.prompts) else np.arange(len(sample))
    numbers, index = np.unique(groups, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(numbers)) % 2 == 0
    return np.asarray(dealt[index])


def _threshold_at(descending: Floats, strong_calls: int) -> float:
    """Between the last score that goes to the strong model and the first that does not."""
    if strong_calls == 0:
        return float(descending[0]) + 10.0**-DECIMALS
    if strong_calls == len(descending):
        return float(descending[-1]) - 10.0**-DECIMALS
    return float(descending[strong_calls - 1] + descending[strong_calls]) / 2


def _check_gap(graded: Graded) -> None:
    weak, strong = float(graded.weak.mean()), float(graded.strong.mean())
    if strong <= weak:
        raise DataError(
            f"the strong model's answers (mean score {strong:.3f}) are no better than the cheap one's ({weak:.3f}) on "
            "these prompts: there is nothing to route for, use a policy of type fixed"
        )


def _expected(
    held_out: Scored, strong_call: NDArray[np.bool_], prices: Prices | None, rounds: int, seed: int
) -> dict[str, Interval]:
    """Means over the held-out prompts, with 95% bootstrap intervals."""
    columns = {"strong_share": strong_call.astype(float)}
    if held_out.has_outcome.all():
        columns["quality"] = np.where(strong_call, held_out.strong, held_out.weak)
    if prices is not None:
        weak, strong = held_out.dollars(prices)
        columns["dollars_per_1k"] = np.where(strong_call, strong, weak) * 1000
        columns["dollars_per_1k_always_strong"] = strong * 1000
    found = {name: _mean(values, rounds, seed) for name, values in columns.items()}
    if "quality" in columns and held_out.strong.mean() > 0:
        found["quality_share"] = _ratio(columns["quality"], held_out.strong, rounds, seed)
    return found


def _mean(values: Floats, rounds: int, seed: int) -> Interval:
    return _ratio(values, np.ones(len(values)), rounds, seed)


def _ratio(above: Floats, below: Floats, rounds: int, seed: int) -> Interval:
    """The sum of one column over that of another, and its interval."""
    drawn = np.random.default_rng(seed).integers(0, len(above), (rounds, len(above)))
    low, high = np.percentile(above[drawn].sum(axis=1) / below[drawn].sum(axis=1), [2.5, 97.5])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))
