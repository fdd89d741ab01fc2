"""Who is let in when the event loop is late, in told time; and how many requests the open files allow."""

from __future__ import annotations

import pytest

from router.http.admission import Shedder, affordable

TARGET_S = 0.025
TICK_S = 0.02


def tick(shedder: Shedder, lag_s: float, times: int, now: float = 0.0) -> float:
    """Show the same lag so many ticks in a row; return the moment after them."""
    for _ in range(times):
        now += TICK_S + lag_s
        shedder.observe(lag_s, now)
    return now


def admitted(shedder: Shedder, of: int) -> int:
    return sum(shedder.admits() for _ in range(of))


def test_a_loop_that_is_on_time_lets_everybody_in() -> None:
    shedder = Shedder(TARGET_S)
    tick(shedder, 0.024, 1000)
    assert admitted(shedder, 100) == 100


def test_one_long_delay_refuses_nobody() -> None:
    shedder = Shedder(TARGET_S)
    now = tick(shedder, 5.0, 1)
    assert admitted(shedder, 100) == 100
    now = tick(shedder, 0.001, 1, now)
    tick(shedder, 0.2, 1, now)
    assert admitted(shedder, 100) == 100


def test_a_lasting_delay_refuses_more_and_more_but_never_all() -> None:
    shedder = Shedder(TARGET_S)
    now = tick(shedder, 0.05, 5)
    shares = [admitted(shedder, 1000)]
    for _ in range(10):
        now = tick(shedder, 0.05, 2, now)
        shares.append(admitted(shedder, 1000))
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(20, abs=1)


def test_it_lets_more_in_as_soon_as_the_loop_is_on_time_again() -> None:
    shedder = Shedder(TARGET_S)
    now = tick(shedder, 0.5, 20)
    assert admitted(shedder, 100) < 10
    tick(shedder, 0.0, 100, now)
    assert admitted(shedder, 100) == 100


def test_those_who_are_let_in_are_spread_evenly() -> None:
    shedder = Shedder(TARGET_S)
    shedder.share = 0.25
    pattern = [shedder.admits() for _ in range(12)]
    assert pattern == [False, False, False, True] * 3


def test_without_a_target_nobody_is_refused() -> None:
    shedder = Shedder(0.0)
    tick(shedder, 5.0, 100)
    assert admitted(shedder, 100) == 100


def test_it_finds_the_share_that_the_processor_can_take() -> None:
    """A made-up loop: the lag grows while more comes in than can be done, at five times what can be done."""
    shedder, backlog_s, now, done = Shedder(TARGET_S), 0.0, 0.0, []
    for _ in range(500):
        came_s = 5 * TICK_S * shedder.share  # seconds of work
        backlog_s = max(0.0, backlog_s + came_s - TICK_S)
        done.append(min(TICK_S, came_s + backlog_s))
        now += TICK_S
        shedder.observe(backlog_s, now)
    steady = done[100:]
    assert sum(steady) / len(steady) > 0.8 * TICK_S
    assert backlog_s < 4 * TARGET_S


@pytest.mark.parametrize(("open_files", "requests"), [(64, 1), (256, 76), (1024, 384), (65536, 26188)])
def test_open_files_limit_the_requests(open_files: int, requests: int) -> None:
    assert affordable(open_files) == requests
    assert affordable(open_files) * 2 <= max(open_files - 64, 2)
