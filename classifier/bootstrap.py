"""Figures of one routing score with 95% bootstrap intervals, and the difference of two scores; pure numpy.

A resample draws the prompts anew, with replacement: here as how often each is drawn, so that no round has to sort.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from classifier import metrics
from classifier.metrics import Floats, Interval, curve

BINS: Final = 10
QUALITY: Final = 0.95  # of the always strong model's

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Graded:
    """n prompts with what a cheap and an expensive model's answers were worth, 0..1, and cost, in dollars."""

    weak: Floats
    strong: Floats
    dollars: tuple[Floats, Floats] | None = None  # of the weak and of the strong answer

    def rows(self, chosen: NDArray[np.bool_]) -> "Graded":
        """The prompts for which `chosen` is true."""
        dollars = None if self.dollars is None else (self.dollars[0][chosen], self.dollars[1][chosen])
        return Graded(self.weak[chosen], self.strong[chosen], dollars)


def figures(
    score: Floats, graded: Graded, *, p_weak: Floats | None = None, rounds: int = 500, seed: int = 0
) -> dict[str, Interval]:
    """APGR, CPT50, CPT80, strong calls and dollars a thousand prompts for 95% quality, AUC, and the ECE of `p_weak`.

    NaN where a figure is undefined. Dollars and ECE are left out when what they need is not given.
    """
    rng = np.random.default_rng(seed)
    ranked = _Ranked.of(score, graded, p_weak, rng)
    n = len(score)
    sampled = [ranked.figures(_draw(rng, n)) for _ in range(rounds)]
    return {
        name: _interval(value, np.array([one[name] for one in sampled]))
        for name, value in _exact(score, graded, p_weak).items()
    }


def apgr_difference(one: Floats, other: Floats, graded: Graded, *, rounds: int = 500, seed: int = 0) -> Interval:
    """APGR of `one` less that of `other`, both judged on the same prompts in every resample."""
    rng = np.random.default_rng(seed)
    first, second = (_Ranked.of(score, graded, None, rng) for score in (one, other))
    sampled = np.empty(rounds)
    for r in range(rounds):
        drawn = _draw(rng, len(one))
        sampled[r] = first.apgr(drawn) - second.apgr(drawn)
    exact, exact_other = (metrics.apgr(curve(score, graded.weak, graded.strong)) for score in (one, other))
    return _interval(exact - exact_other, sampled)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The prompts in the order of a score, the highest first, ties in random order: their mean would hide variance."""

    order: NDArray[np.int64]
    weak: Floats
    gain: Floats
    positive: NDArray[np.bool_]
    dollars: tuple[Floats, Floats] | None  # of the weak answer, and what the strong one costs more
    p_weak: Floats | None
    bins: NDArray[np.int64] | None

    @classmethod
    def of(cls, score: Floats, graded: Graded, p_weak: Floats | None, rng: np.random.Generator) -> "_Ranked":
        order = np.lexsort((rng.random(len(score)), -score))
        weak, gain = graded.weak[order], (graded.strong - graded.weak)[order]
        dollars = None
        if graded.dollars is not None:
            cheap, dear = graded.dollars
            dollars = cheap[order], (dear - cheap)[order]
        probability = None if p_weak is None else p_weak[order]
        bins = None if probability is None else np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
        return cls(order, weak, gain, gain > 0, dollars, probability, bins)

    def figures(self, drawn: Counts) -> dict[str, float]:
        """All figures of one resample; `drawn` is how often each prompt is in it, in the order of the file."""
        counts = drawn[self.order]
        share, quality, pgr = self._curve(counts)
        found = {
            "apgr": _area(share, pgr),
            "cpt50": _first(share, pgr, 0.5),
            "cpt80": _first(share, pgr, 0.8),
            "strong_for_95": _first(share, quality, QUALITY * float(quality[-1])),
            "auc": self._auc(counts),
        }
        if self.dollars is not None:
            cheap, extra = self.dollars
            spent = (counts @ cheap + _running(counts * extra)) * 1000 / counts.sum()
            found["dollars_for_95"] = _first(spent, quality, QUALITY * float(quality[-1]))
        if self.p_weak is not None and self.bins is not None:
            surplus = np.bincount(self.bins, weights=counts * (self.p_weak - self.weak), minlength=BINS)
            found["ece"] = float(np.abs(surplus).sum() / counts.sum())
        return found

    def apgr(self, drawn: Counts) -> float:
        """APGR of one resample."""
        share, _, pgr = self._curve(drawn[self.order])
        return _area(share, pgr)

    def _curve(self, counts: Counts) -> tuple[Floats, Floats, Floats]:
        """Share of strong calls, quality and PGR, each [n + 1]."""
        n = counts.sum()
        gained = _running(counts * self.gain) / n
        pgr = gained / gained[-1] if abs(gained[-1]) > 1e-9 else np.full_like(gained, np.nan)
        return _running(counts) / n, counts @ self.weak / n + gained, pgr

    def _auc(self, counts: Counts) -> float:
        positives, negatives = counts * self.positive, counts * ~self.positive
        pairs = float(positives.sum()) * float(negatives.sum())
        ranked_below = negatives.sum() - np.cumsum(negatives)
        return float(positives @ ranked_below) / pairs if pairs else float("nan")


def _exact(score: Floats, graded: Graded, p_weak: Floats | None) -> dict[str, float]:
    """The figures of the prompts as they are; equal scores count with their mean."""
    routed = curve(score, graded.weak, graded.strong)
    found = {
        "apgr": metrics.apgr(routed),
        "cpt50": metrics.call_share_for_pgr(routed, 0.5),
        "cpt80": metrics.call_share_for_pgr(routed, 0.8),
        "strong_for_95": metrics.call_share_for_quality(routed, QUALITY),
        "auc": metrics.auc(score, graded.strong > graded.weak),
    }
    if graded.dollars is not None:
        spent = spent_along(score, graded.dollars)
        found["dollars_for_95"] = _first(spent, routed.quality, QUALITY * float(routed.quality[-1]))
    if p_weak is not None:
        found["ece"] = metrics.ece(p_weak, graded.weak, BINS)
    return found


def spent_along(score: Floats, dollars: tuple[Floats, Floats]) -> Floats:
    """Dollars a thousand prompts along the routing curve, [n + 1], from no strong call to all strong."""
    cheap, dear = dollars
    order = np.argsort(-score, kind="stable")
    return np.asarray((cheap.sum() + _running((dear - cheap)[order])) * 1000 / len(score))


def _draw(rng: np.random.Generator, n: int) -> Counts:
    return np.bincount(rng.integers(0, n, n), minlength=n)


def _running(values: NDArray[np.generic]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _area(x: Floats, y: Floats) -> float:
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def _first(x: Floats, y: Floats, target: float) -> float:
    reached = np.flatnonzero(y >= target - 1e-12)
    return float(x[reached[0]]) if len(reached) else float("nan")


def _interval(value: float, sampled: Floats) -> Interval:
    if not len(sampled) or np.isnan(sampled).all():
        return Interval(value, float("nan"), float("nan"))
    low, high = np.nanpercentile(sampled, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def as_numbers(found: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """JSON-ready; JSON has no NaN, so what is undefined is null."""

    def number(value: float) -> float | None:
        return None if np.isnan(value) else round(value, 6)

    return {
        name: {"value": number(one.value), "low": number(one.low), "high": number(one.high)}
        for name, one in found.items()
    }
