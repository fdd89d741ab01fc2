"""A circuit breaker: after some failures in a row nothing is sent for a while, then one attempt at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from time import monotonic


class State(IntEnum):
    """What a breaker lets through, in the order of how bad things are; the values are the metric's."""

    CLOSED = 0  # everything
    HALF_OPEN = 1  # one attempt for each cooldown
    OPEN = 2  # nothing


class Breaker:
    """Opens after `failures_to_open` failures in a row; a success closes it.

    `cooldown_s` after it opened, and again that long after each attempt, one caller is allowed to try. An attempt
    that never reports back therefore blocks nothing for longer than a cooldown.
    """

    def __init__(
        self,
        *,
        failures_to_open: int,
        cooldown_s: float,
        changed: Callable[[State], None] = lambda _: None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._failures_to_open = failures_to_open
        self._cooldown_s = cooldown_s
        self._changed = changed
        self._now = now
        self._failures = 0
        self._next_attempt = 0.0
        self.state = State.CLOSED

    @property
    def next_attempt(self) -> float:
        """The moment, by its clock, from which it lets somebody through."""
        return -math.inf if self.state is State.CLOSED else self._next_attempt

    def allows(self) -> bool:
        """Return whether the caller may go ahead; while it is not closed, True makes the caller the one attempt."""
        if self.state is State.CLOSED:
            return True
        if self._now() < self._next_attempt:
            return False
        self._next_attempt = self._now() + self._cooldown_s
        self._become(State.HALF_OPEN)
        return True

    def succeeded(self) -> None:
        """Report an answer."""
        self._failures = 0
        self._become(State.CLOSED)

    def failed(self) -> None:
        """Report a failure."""
        self._failures += 1
        if self._failures >= self._failures_to_open:
            self._next_attempt = self._now() + self._cooldown_s
            self._become(State.OPEN)

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._changed(state)
