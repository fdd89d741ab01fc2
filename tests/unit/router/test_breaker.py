"""The breaker against a clock of its own."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from router.breaker import Breaker, State


class Clocked:
    """A breaker of three failures and ten seconds, and what it told of itself."""

    def __init__(self) -> None:
        self.time = 0.0
        self.told: list[State] = []
        self.breaker = Breaker(failures_to_open=3, cooldown_s=10, changed=self.told.append, now=lambda: self.time)

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.failed()


def test_it_opens_at_the_last_failure_in_a_row_and_not_before() -> None:
    clocked = Clocked()
    clocked.fail(2)
    clocked.breaker.succeeded()
    clocked.fail(2)
    assert clocked.breaker.allows()
    clocked.fail(1)
    assert not clocked.breaker.allows()
    assert clocked.told == [State.OPEN]


def test_after_the_cooldown_one_may_try_and_the_others_wait() -> None:
    clocked = Clocked()
    clocked.fail(3)
    clocked.time = 9.9
    assert not clocked.breaker.allows()
    clocked.time = 10.0
    assert [clocked.breaker.allows() for _ in range(3)] == [True, False, False]
    clocked.fail(1)
    assert clocked.breaker.state is State.OPEN
    clocked.time = 20.0
    assert clocked.breaker.allows()
    clocked.breaker.succeeded()
    assert all(clocked.breaker.allows() for _ in range(3))
    assert clocked.told == [State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_an_attempt_that_never_reports_blocks_for_one_cooldown_only() -> None:
    clocked = Clocked()
    clocked.fail(3)
    clocked.time = 10.0
    assert clocked.breaker.allows()
    clocked.time = 20.0
    assert clocked.breaker.allows()


@given(st.lists(st.sampled_from(["fail", "succeed", "ask", "wait"]), max_size=60))
def test_while_it_is_not_closed_at_most_one_is_allowed_for_each_cooldown(steps: list[str]) -> None:
    clocked = Clocked()
    allowed: list[float] = []
    for step in steps:
        match step:
            case "fail":
                clocked.fail(1)
            case "succeed":
                clocked.breaker.succeeded()
                allowed.clear()
            case "wait":
                clocked.time += 3.0
            case "ask":
                closed = clocked.breaker.state is State.CLOSED
                if clocked.breaker.allows() and not closed:
                    allowed.append(clocked.time)
    assert all(later - earlier >= 10 for earlier, later in pairwise(allowed))
