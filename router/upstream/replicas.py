"""The equal servers of one model: which is asked next, and which are left alone for a while.

Of those that are well the one with the fewest requests under way is asked, in turns where that is equal. A server is
left alone while its breaker is open, and for as long as its own `Retry-After` asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from time import monotonic

from router.breaker import Breaker, State
from router.errors import UpstreamError, UpstreamRateLimited, UpstreamRefused, UpstreamUnavailable
from router.meters import LoopGauge
from router.metrics import Metrics
from router.settings import ModelSettings, UpstreamSettings
from router.upstream.client import Target
from router.upstream.retry import RetryBudget

Clock = Callable[[], float]

_CHAT_PATH = "/chat/completions"


class Endpoint:
    """One server of a model and how it is doing. Enter it for as long as it works on a request."""

    def __init__(
        self, model: ModelSettings, number: int, limits: UpstreamSettings, metrics: Metrics, now: Clock
    ) -> None:
        self.model = model
        self.target = Target.of(model.replicas[number - 1], _CHAT_PATH)
        self._limits = limits
        self._now = now
        labels = (model.name, str(number))
        breaker_state = metrics.upstream_breaker.labels(*labels)
        breaker_state.set(State.CLOSED)
        self._breaker = Breaker(
            failures_to_open=limits.failures_to_open, cooldown_s=limits.cooldown_s, changed=breaker_state.set, now=now
        )
        self._rested_at = -math.inf
        self._in_use: LoopGauge = metrics.upstream_in_flight.labels(*labels)

    def __enter__(self) -> None:
        self._in_use.inc()

    def __exit__(self, *_: object) -> None:
        self._in_use.dec()

    @property
    def in_flight(self) -> float:
        """How many requests it works on."""
        return self._in_use.now

    @property
    def free_at(self) -> float:
        """The moment, by its clock, from which it may be asked."""
        return max(self._rested_at, self._breaker.next_attempt)

    @property
    def rests(self) -> bool:
        """Whether it has asked to be left alone, and that time is not over."""
        return self._now() < self._rested_at

    def take(self) -> Endpoint:
        """Return itself, to be asked now; a breaker that is not closed lets nobody else through for a while."""
        self._breaker.allows()
        return self

    def began(self) -> None:
        """Note that an answer has begun: nobody need wait for the end of a long one to see that it is back."""
        if self._breaker.state is not State.CLOSED:
            self._breaker.succeeded()

    def succeeded(self) -> None:
        """Note that an answer has reached its end."""
        self._breaker.succeeded()

    def failed(self, error: UpstreamError) -> None:
        """Note what went wrong. A refusal that is the client's own fault, or a 429, comes from a server that works."""
        refused = error if isinstance(error, UpstreamRefused) else None
        if refused is not None and not refused.is_failure:
            self._breaker.succeeded()
        else:
            self._breaker.failed()
        pause = None if refused is None else refused.pause_s
        if pause is None and refused is not None and refused.status == 429:
            pause = self._limits.cooldown_s
        if pause is not None:
            self._rested_at = max(self._rested_at, self._now() + min(pause, self._limits.max_cooldown_s))


class Replicas:
    """All servers of one model, and the budget for asking them again."""

    def __init__(
        self, model: ModelSettings, limits: UpstreamSettings, metrics: Metrics, now: Clock = monotonic
    ) -> None:
        self.model = model
        self.budget = RetryBudget(limits.retry_budget)
        self._endpoints = [Endpoint(model, n, limits, metrics, now) for n in range(1, len(model.replicas) + 1)]
        self._now = now
        self._turn = 0

    def next(self, apart_from: Collection[Endpoint] = ()) -> Endpoint | None:
        """Return the server to ask, None when none but `apart_from` may be asked now."""
        now = self._now()
        well = [one for one in self._endpoints if one.free_at <= now and one not in apart_from]
        if len(well) < 2:
            return well[0] if well else None
        if not apart_from:  # a retry takes nobody's turn
            self._turn += 1
        turn = self._turn % len(well)
        return min(well[turn:] + well[:turn], key=lambda one: one.in_flight)

    def why_not(self) -> UpstreamError:
        """Say why none may be asked, and when one may."""
        free_at = min(one.free_at for one in self._endpoints)
        wait_s = max(1, math.ceil(free_at - self._now()))
        name = self.model.name
        if any(one.rests for one in self._endpoints):
            return UpstreamRateLimited(f"Model '{name}' asked not to be called for {wait_s} s.", retry_after_s=wait_s)
        return UpstreamUnavailable(
            f"Model '{name}' has failed repeatedly and is tried again in {wait_s} s.", retry_after_s=wait_s
        )
