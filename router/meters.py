"""The metrics library's counters, gauges and histograms, for a hot path that takes some twenty steps a request.

At each step the library checks, locks and, with several workers, writes to a file. Here a step is an addition; the
library hears the sums when they are settled, before they are read. Only the event loop's thread may take such steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric


class Registry(CollectorRegistry):
    """A registry whose meters are settled before it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.unsettled: list[_Meter] = []

    def settle(self) -> None:
        """Tell the library what has been counted since the last time."""
        while self.unsettled:
            self.unsettled.pop().settle()

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics, up to date."""
        self.settle()
        return super().collect()


class _Meter:
    """What the three kinds share: children that are found again at once, and a place among the unsettled."""

    _unsettled: list[_Meter]
    _waits = False

    def __init__(self, *args: Any, registry: Registry | None = None, **kwargs: Any) -> None:  # noqa: ANN401 - the library's own
        self.labels = lru_cache(maxsize=None)(self._child)
        if registry is not None:
            self._unsettled = registry.unsettled
        super().__init__(*args, registry=registry, **kwargs)  # type: ignore[call-arg] # comes before a metric

    def _child(self, *values: Any, **named: Any) -> Any:  # noqa: ANN401 - the library's own
        child = super().labels(*values, **named)  # type: ignore[misc] # the metric has it that this is mixed into
        child._unsettled = self._unsettled
        return child

    def settle(self) -> None:
        """Tell the library."""
        raise NotImplementedError

    def _wait(self) -> None:
        self._waits = True
        self._unsettled.append(self)


class LoopCounter(_Meter, Counter):
    """A counter for the event loop's thread."""

    _more: float = 0

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count."""
        self._more += amount
        if not self._waits:
            self._wait()

    def settle(self) -> None:
        """Tell the library."""
        self._waits = False
        more, self._more = self._more, 0
        super().inc(more)


class LoopGauge(_Meter, Gauge):
    """A gauge that the event loop's thread moves; where none does, `set` may come from any thread."""

    now: float = 0
    """This process's own value."""

    def inc(self, amount: float = 1) -> None:
        """Move up."""
        self.now += amount
        if not self._waits:
            self._wait()

    def set(self, value: float) -> None:
        """Take another value."""
        self.now = value
        super().set(value)

    def dec(self, amount: float = 1) -> None:
        """Move down."""
        self.inc(-amount)

    def settle(self) -> None:
        """Tell the library."""
        self._waits = False
        super().set(self.now)


class LoopHistogram(_Meter, Histogram):
    """A histogram for the event loop's thread."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._more = [0] * len(self._upper_bounds)  # by bucket
        self._more_sum = 0.0

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count `amount` into its bucket."""
        if exemplar is not None:
            super().observe(amount, exemplar)
            return
        self._more[bisect_left(self._upper_bounds, amount)] += 1
        self._more_sum += amount
        if not self._waits:
            self._wait()

    def settle(self) -> None:
        """Tell the library."""
        self._waits = False
        self._sum.inc(self._more_sum)
        self._more_sum = 0.0
        for i, more in enumerate(self._more):
            if more:
                self._buckets[i].inc(more)
                self._more[i] = 0
