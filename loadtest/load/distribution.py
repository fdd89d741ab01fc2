"""Many measured values in little memory: counts in geometric buckets, which merge exactly."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Self

# A bucket ends 2% above the one before: any quantile is right to 1%.
_GROWTH = 1.02
_SMALLEST = 1e-6
_STEP = math.log(_GROWTH)


class Distribution:
    """Values of one kind, such as seconds, above or equal to 0."""

    __slots__ = ("_buckets", "count", "maximum", "total")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Count `value`, `count` times."""
        self._buckets[math.ceil(math.log(value / _SMALLEST) / _STEP) if value > _SMALLEST else 0] += count
        self.count += count
        self.total += value * count
        self.maximum = max(self.maximum, value)

    def merge(self, other: Distribution) -> None:
        """Take in all values of another one."""
        self._buckets.update(other._buckets)
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    @property
    def mean(self) -> float | None:
        """The mean, None without values."""
        return self.total / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """Return the smallest value that a share of `q` does not exceed, to 1%; None without values."""
        rank, seen = max(1, math.ceil(q * self.count)), 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= rank:
                middle: float = _SMALLEST * _GROWTH ** (index - 0.5)
                return min(self.maximum, middle)
        return None

    def at_most(self, bound: float) -> int:
        """Return how many values are at or below `bound`, one that is within 1% of it by chance."""
        last = math.log(bound / _SMALLEST) / _STEP + 0.5
        return sum(count for index, count in self._buckets.items() if index <= last)

    def to_wire(self) -> dict[str, Any]:
        """Return plain lists and numbers, for a message or a file."""
        pairs = [[index, count] for index, count in sorted(self._buckets.items())]
        return {"buckets": pairs, "total": self.total, "maximum": self.maximum}

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Self:
        """Read what `to_wire` wrote."""
        distribution = cls()
        distribution._buckets.update({int(index): int(count) for index, count in wire["buckets"]})
        distribution.count = sum(distribution._buckets.values())
        distribution.total, distribution.maximum = wire["total"], wire["maximum"]
        return distribution
