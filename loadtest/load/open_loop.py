"""Open-loop arrivals: requests leave when they are due, however slow the answers are. Pure."""

from __future__ import annotations

import random


class PoissonClock:
    """When one source sends; many sources at 1/s each make together the load of their number per second."""

    def __init__(self, rate: float, now: float, rng: random.Random) -> None:
        self._rate, self._rng = rate, rng
        self._due = now + rng.expovariate(rate)

    def wait_s(self, now: float) -> tuple[float, float]:
        """Return the seconds until the next arrival and by how many seconds we are late for it; advances.

        A late arrival leaves at once and does not delay those after it.
        """
        due = self._due
        self._due += self._rng.expovariate(self._rate)
        return max(0.0, due - now), max(0.0, now - due)
