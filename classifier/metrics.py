"""How well a score routes, in RouteLLM's terms; pure numpy.

Prompts are sorted by score, the highest first, and the first k go to the strong model. Quality is the mean
score of the answers; PGR (performance gap recovered) is 0 when the weak model answers everything and 1 when
the strong model does. APGR is the area under PGR over the share of strong calls: .50 for a random score.
Prompts of equal score are exchangeable, so each counts with the mean of its ties.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAIN_SHARE: Final = 0.75  # of gain in need_strong; docs/classifier-lab.md has the others that were tried


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality against the share of strong calls, both shape [n + 1], from no strong call to all strong."""

    strong_share: Floats
    quality: Floats

    @property
    def gap(self) -> float:
        """Mean score of the strong model less that of the weak one."""
        return float(self.quality[-1] - self.quality[0])

    @property
    def pgr(self) -> Floats:
        """Share of the gap recovered, shape [n + 1]; NaN when there is no gap to recover."""
        if abs(self.gap) < 1e-9:
            return np.full_like(self.quality, np.nan)
        return np.asarray((self.quality - self.quality[0]) / self.gap)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Report:
    """What one score reaches on one set of prompts; shares and probabilities in 0..1, NaN where undefined."""

    apgr: Interval
    cpt50: float
    cpt80: float
    strong_for_95: float
    auc: float
    ece: float


def curve(score: Floats, weak: Floats, strong: Floats) -> Curve:
    """The routing curve of `score`; all shape [n], `weak` and `strong` the graded answers in 0..1."""
    _check_same_length(score, weak, strong)
    order = np.argsort(-score, kind="stable")
    gain = _mean_of_ties(score[order], (strong - weak)[order])
    n = len(score)
    quality = weak.mean() + np.concatenate([[0.0], np.cumsum(gain)]) / n
    return Curve(np.arange(n + 1) / n, quality)


def apgr(routed: Curve) -> float:
    """Area under PGR, 0..1 for sensible scores; NaN when there is no gap."""
    pgr = routed.pgr
    return float(((pgr[1:] + pgr[:-1]) / 2 * np.diff(routed.strong_share)).sum())


def call_share_for_pgr(routed: Curve, target: float) -> float:
    """CPT: the least share of strong calls whose PGR reaches `target` (0..1); NaN when there is no gap."""
    return _first_reaching(routed.strong_share, routed.pgr, target)


def call_share_for_quality(routed: Curve, share_of_strong: float = 0.95) -> float:
    """The least share of strong calls whose quality reaches this share of the strong model's."""
    return _first_reaching(routed.strong_share, routed.quality, share_of_strong * float(routed.quality[-1]))


def auc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive outscores a negative, ties count half; NaN when one class is missing."""
    _check_same_length(score, positive)
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = float(_mean_ranks(score)[positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def ece(probability: Floats, outcome: Floats, bins: int = 10) -> float:
    """Expected calibration error: |mean probability - mean outcome| per equal-width bin, weighted by size."""
    _check_same_length(probability, outcome)
    place = np.clip((probability * bins).astype(int), 0, bins - 1)
    surplus = np.bincount(place, weights=probability - outcome, minlength=bins)
    return float(np.abs(surplus).sum() / len(probability))


def bootstrap_apgr(score: Floats, weak: Floats, strong: Floats, *, rounds: int = 500, seed: int = 0) -> Interval:
    """APGR with a percentile interval over `rounds` resamples of the prompts."""
    value = apgr(curve(score, weak, strong))
    rng = np.random.default_rng(seed)
    n = len(score)
    # Ties in random order: their mean, as in the curve, would hide that they vary.
    order = np.lexsort((rng.random(n), -score))
    gain, sorted_weak = (strong - weak)[order], weak[order]
    sampled = np.empty(rounds)
    for r in range(rounds):
        rows = np.sort(rng.integers(0, n, n))
        quality = sorted_weak[rows].mean() + np.concatenate([[0.0], np.cumsum(gain[rows])]) / n
        sampled[r] = apgr(Curve(np.arange(n + 1) / n, quality))
    if np.isnan(sampled).all():
        return Interval(value, float("nan"), float("nan"))
    low, high = np.nanpercentile(sampled, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def report(score: Floats, weak: Floats, strong: Floats, *, p_weak: Floats | None = None, rounds: int = 500) -> Report:
    """All figures of one score. `p_weak`, the predicted score of the weak model, gives the ECE."""
    routed = curve(score, weak, strong)
    return Report(
        apgr=bootstrap_apgr(score, weak, strong, rounds=rounds),
        cpt50=call_share_for_pgr(routed, 0.5),
        cpt80=call_share_for_pgr(routed, 0.8),
        strong_for_95=call_share_for_quality(routed),
        auc=auc(score, strong > weak),
        ece=float("nan") if p_weak is None else ece(p_weak, weak),
    )


def need_strong(outcome: Floats) -> Floats:
    """The default routing score, -GAIN_SHARE..1: gain and 1 - p_weak in one, of outcome probabilities [n, 4] or [4]."""
    _, only_strong, only_weak, neither = outcome.T
    gain, one_minus_p_weak = only_strong - only_weak, only_strong + neither
    return np.asarray(GAIN_SHARE * gain + (1 - GAIN_SHARE) * one_minus_p_weak)


def spearman(one: Floats, other: Floats) -> float:
    """Rank correlation, -1..1, of two arrays [n]; equal values share their mean rank. NaN when one is constant."""
    _check_same_length(one, other)
    first, second = _mean_ranks(one), _mean_ranks(other)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _mean_ranks(values: Floats) -> Floats:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[index])


def _mean_of_ties(sorted_score: Floats, values: Floats) -> Floats:
    _, index, counts = np.unique(-sorted_score, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(index, weights=values) / counts)[index])


def _first_reaching(share: Floats, values: Floats, target: float) -> float:
    reached = np.flatnonzero(values >= target - 1e-12)
    return float(share[reached[0]]) if len(reached) else float("nan")


def _check_same_length(*arrays: NDArray[np.generic]) -> None:
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        raise ValueError(f"arrays of one length, at least 1, are needed; got lengths {lengths}")
