"""How many users at which second. Pure; SHAPE chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

STEPS = 5
_SPIKE_BASE = 0.1


def _steps(progress: float) -> float:
    """Five equal steps up, to compare the levels."""
    return (int(progress * STEPS) + 1) / STEPS


def _spike(progress: float) -> float:
    """A tenth of the users, all of them in the middle fifth, to see whether it recovers."""
    return 1.0 if 0.4 <= progress < 0.6 else _SPIKE_BASE


def _ramp(progress: float) -> float:
    """A straight line up to all users, to find the knee."""
    return progress


SHAPES: Mapping[str, Callable[[float], float]] = MappingProxyType({"steps": _steps, "spike": _spike, "ramp": _ramp})
"""The share of the users at each moment; its argument runs from 0 to 1. `constant` needs no shape."""


def users_at(shape: str, second: float, *, users: int, duration_s: float) -> int | None:
    """Return how many users there are `second` seconds after the start, None once the time is over."""
    if second >= duration_s:
        return None
    return max(1, round(users * SHAPES[shape](second / duration_s)))
