"""What the classifier says about one prompt, and the labels by which it says it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NewType

import msgspec

from router.settings import COMPLEXITY_WEIGHTS, GAIN_SHARE

OUTCOMES = ("both", "only_strong", "only_weak", "neither")

_OF_OUTCOME = frozenset(["gain", "need_strong", "p_weak", "p_strong", "one_minus_p_weak"])

Version = NewType("Version", str)


@dataclass(frozen=True, slots=True)
class Labels:
    """What the served model's outputs mean, read from the `spec` in its configuration.

    An empty tuple declares a head absent; its output is then NaN and ignored.
    """

    outcomes: tuple[str, ...] = ()
    task_types: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    places: tuple[int, int, int] = field(init=False, compare=False, repr=False, default=(0, 0, 0))
    """Where `outcomes` has "both", "only_weak" and "only_strong"."""

    def __post_init__(self) -> None:
        if self.outcomes:
            both, only_weak, only_strong = map(self.outcomes.index, ("both", "only_weak", "only_strong"))
            object.__setattr__(self, "places", (both, only_weak, only_strong))


class Classification(msgspec.Struct, frozen=True):
    """One prompt's scores, each tuple in the order of `labels`; probabilities are calibrated, 0..1.

    Dimensions are 0..1 too, but for few_shots of NVIDIA's own model: the number of examples in the prompt, 0..5.
    `tokens_seen` and `tokens_dropped` count the model's own tokens; dropped ones were cut off by its limit.
    """

    labels: Labels
    version: Version
    outcome: tuple[float, ...] = ()
    task_type: tuple[float, ...] = ()
    dimensions: tuple[float, ...] = ()
    tokens_seen: int = 0
    tokens_dropped: int = 0

    @property
    def p_weak(self) -> float:
        """The probability that the weak model answers well; NaN without an outcome head."""
        if not self.outcome:
            return math.nan
        both, only_weak, _ = self.labels.places
        return self.outcome[both] + self.outcome[only_weak]

    @property
    def p_strong(self) -> float:
        """The probability that the strong model answers well; NaN without an outcome head."""
        if not self.outcome:
            return math.nan
        both, _, only_strong = self.labels.places
        return self.outcome[both] + self.outcome[only_strong]

    @property
    def task(self) -> tuple[int, float]:
        """The index and the probability of the likeliest task type; (0, NaN) without a task head."""
        if not self.task_type:
            return 0, math.nan
        likeliest = max(self.task_type)
        return self.task_type.index(likeliest), likeliest

    @property
    def gain(self) -> float:
        """What the strong model adds: p_strong - p_weak, in -1..1."""
        return self.p_strong - self.p_weak

    @property
    def need_strong(self) -> float:
        """Mostly gain (best in domain), the rest 1 - p_weak (best out of domain); in -GAIN_SHARE..1."""
        return GAIN_SHARE * self.gain + (1.0 - GAIN_SHARE) * (1.0 - self.p_weak)

    def score(self, name: str) -> float:
        """Return one of SCORE_NAMES; ValueError when the model lacks the head that it needs."""
        if name in _OF_OUTCOME:
            if not self.outcome:
                raise ValueError(f"{name} needs an outcome head")
            return 1.0 - self.p_weak if name == "one_minus_p_weak" else float(getattr(self, name))
        if name == "complexity":
            return sum(weight * self.score(dimension) for dimension, weight in COMPLEXITY_WEIGHTS.items())
        return self.dimensions[self.labels.dimensions.index(name)]

    def described(self) -> dict[str, Any]:
        """Return everything that is known as JSON-able values; a head that the model lacks is None."""
        names = ("p_weak", "p_strong", "gain", "need_strong")
        return {
            "outcome": dict(zip(self.labels.outcomes, self.outcome, strict=True)) or None,
            "scores": {name: self.score(name) for name in names} if self.outcome else None,
            "task_type": dict(zip(self.labels.task_types, self.task_type, strict=True)) or None,
            "task": self.labels.task_types[self.task[0]] if self.task_type else None,
            "dimensions": dict(zip(self.labels.dimensions, self.dimensions, strict=True)) or None,
            "tokens_seen": self.tokens_seen,
            "tokens_dropped": self.tokens_dropped,
        }
