"""What the classifier says about one prompt, and the labels by which it says it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NewType

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


@dataclass(frozen=True, slots=True)
class Classification:
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
    p_weak: float = field(init=False, compare=False, default=math.nan)
    """The probability that the weak model answers well."""
    p_strong: float = field(init=False, compare=False, default=math.nan)
    """The probability that the strong model answers well."""
    task: tuple[int, float] = field(init=False, compare=False, default=(0, math.nan))
    """The index and the probability of the likeliest task type."""

    def __post_init__(self) -> None:
        # Once for each classification, which may answer many requests from the cache.
        if self.outcome:
            both = self.outcome_of("both")
            object.__setattr__(self, "p_weak", both + self.outcome_of("only_weak"))
            object.__setattr__(self, "p_strong", both + self.outcome_of("only_strong"))
        if self.task_type:
            best = max(range(len(self.task_type)), key=self.task_type.__getitem__)
            object.__setattr__(self, "task", (best, self.task_type[best]))

    def outcome_of(self, label: str) -> float:
        """Return the probability of one outcome; ValueError when the model has no such label."""
        return self.outcome[self.labels.outcomes.index(label)]

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
