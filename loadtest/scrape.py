"""Reading a Prometheus text page: sums and quantiles of what a server says about itself."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the page."""

    name: str
    labels: dict[str, str]
    value: float


class Page:
    """One scrape. Every counter's name ends in `_total`, also where the page leaves that out, as Triton does."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text format."""
        return cls(
            Sample(sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    @classmethod
    def get(cls, url: str, *, timeout_s: float = 2.0) -> Self:
        """Scrape `url`. Raises `OSError` when nobody answers in time."""
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - our own loopback address
            return cls.parse(answer.read().decode())

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all samples of this name that carry these labels; 0.0 if there are none."""
        return math.fsum(sample.value for sample in self._matching(name, labels))

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Return the sum of the samples of this name for each value of a label; empty if there are none."""
        sums: dict[str, float] = {}
        for sample in self._matching(name, {}):
            value = sample.labels.get(label, "")
            sums[value] = sums.get(value, 0.0) + sample.value
        return sums

    def quantile(self, histogram: str, q: float) -> float | None:
        """Return the q-quantile of a histogram, interpolated in its bucket; None when it is empty.

        Values above the last finite bound count as that bound, as in Prometheus.
        """
        counts: dict[float, float] = {}
        for sample in self._matching(f"{histogram}_bucket", {}):
            bound = float(sample.labels["le"])
            counts[bound] = counts.get(bound, 0.0) + sample.value
        buckets = sorted(counts.items())
        if not buckets or buckets[-1][1] == 0:
            return None
        rank = q * buckets[-1][1]
        lower, below = 0.0, 0.0
        for bound, count in buckets:
            if count >= rank and count > below:
                return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
            lower, below = bound, count
        return lower

    def _matching(self, name: str, labels: dict[str, str]) -> Iterable[Sample]:
        return (s for s in self._samples if s.name == name and labels.items() <= s.labels.items())
