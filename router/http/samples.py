"""Metric samples, summed as a dashboard asks for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Samples:
    """One look at somebody's metrics. Counters' names end in `_total`, also where a page leaves that out."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Prometheus' text format. ValueError when it is something else."""
        try:
            return cls(sample for family in text_string_to_metric_families(text) for sample in family.samples)
        except (LookupError, AttributeError, TypeError) as error:  # how that parser stumbles over another format
            raise ValueError("not Prometheus' text format") from error

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of that name which carry these labels."""
        return sum(sample.value for sample in self._matching(name, labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Return the sums for each value of one label."""
        sums: dict[str, float] = {}
        for sample in self._matching(name, labels):
            value = sample.labels.get(label, "")
            sums[value] = sums.get(value, 0.0) + sample.value
        return sums

    def histogram(self, name: str) -> dict[str, Any]:
        """Return a histogram over all its labels.

        `bounds` are the buckets' finite upper bounds; `counts` has one number a bucket and one for what is above;
        `sum` is that of everything observed.
        """
        cumulative = sorted((float(bound), count) for bound, count in self.by("le", f"{name}_bucket").items())
        below = [0.0, *(count for _, count in cumulative)]
        return {
            "bounds": [bound for bound, _ in cumulative[:-1]],
            "counts": [count - less for (_, count), less in zip(cumulative, below, strict=False)],
            "sum": self.total(f"{name}_sum"),
        }

    def _matching(self, name: str, labels: dict[str, str]) -> Iterator[Sample]:
        wanted = labels.items()
        return (sample for sample in self._by_name.get(name, []) if wanted <= sample.labels.items())
