"""A timer that is moved more often than it rings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from router.timer import LazyTimer


class Handle:
    def __init__(self, at: float, call: Callable[[], object]) -> None:
        self.at, self.call = at, call
        self.cancelled = False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """An event loop with told time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[[], object]) -> Handle:
        self.handles.append(Handle(at, call))
        return self.handles[-1]

    def until(self, moment: float) -> None:
        while due := [one for one in self.handles if one.at <= moment and not one.cancelled]:
            first = min(due, key=Handle.when)
            self.handles.remove(first)
            self.now = first.at
            first.call()
        self.now = moment


def timer_on(clock: Clock) -> LazyTimer:
    return LazyTimer(cast(asyncio.AbstractEventLoop, clock))


def test_it_calls_once_at_its_moment() -> None:
    clock, rung = Clock(), list[float]()
    timer_on(clock).set_in(5.0, lambda: rung.append(clock.now))
    clock.until(4.9)
    assert rung == []
    clock.until(100.0)
    assert rung == [5.0]


def test_a_later_moment_takes_no_new_timer_until_the_old_one_rings() -> None:
    clock, rung = Clock(), list[str]()
    timer = timer_on(clock)
    for number in range(1000):
        clock.until(number / 1000)
        timer.set_in(5.0, lambda: rung.append("no"))
        timer.clear()
        timer.set_in(7.0, lambda: rung.append("yes"))
    assert len(clock.handles) == 1
    clock.until(7.9)
    assert rung == []
    clock.until(8.0)
    assert rung == ["yes"]


def test_an_earlier_moment_is_kept() -> None:
    clock, rung = Clock(), list[float]()
    timer = timer_on(clock)
    timer.set_in(75.0, lambda: rung.append(-1.0))
    timer.set_in(10.0, lambda: rung.append(clock.now))
    clock.until(100.0)
    assert rung == [10.0]


def test_what_is_cleared_or_stopped_does_not_ring() -> None:
    clock, rung = Clock(), list[str]()
    cleared, stopped = timer_on(clock), timer_on(clock)
    for timer in (cleared, stopped):
        timer.set_in(1.0, lambda: rung.append("no"))
    cleared.clear()
    stopped.stop()
    assert [handle.cancelled for handle in clock.handles] == [False, True]
    clock.until(10.0)
    assert rung == []


def test_it_can_be_set_again_when_it_rings() -> None:
    clock, rung = Clock(), list[float]()
    timer = timer_on(clock)

    def again() -> None:
        rung.append(clock.now)
        if len(rung) < 3:
            timer.set_in(1.0, again)

    timer.set_in(1.0, again)
    clock.until(10.0)
    assert rung == [1.0, 2.0, 3.0]
