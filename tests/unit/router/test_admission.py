"""Who is let in when the event loop is late, in told time; and how many requests the open files allow."""

from __future__ import annotations

import math

import pytest

from router.http.admission import Admission, RefusalPace, TimelyLimit, affordable
from router.http.intake import Intake
from router.metrics import Metrics
from router.settings import ServerSettings

TARGET_S = 0.025
TICK_S = 0.02
MANY = 1000


def tick(timely: TimelyLimit, lag_s: float, times: int, now: float = 0.0, in_flight: int = MANY) -> float:
    """Show the same lag so many ticks in a row; return the moment after them."""
    for _ in range(times):
        now += TICK_S + lag_s
        timely.observe(lag_s, in_flight, now)
    return now


def test_a_loop_that_is_on_time_lets_everybody_in() -> None:
    timely = TimelyLimit(TARGET_S)
    tick(timely, 0.024, 1000)
    assert timely.limit == math.inf


def test_one_long_delay_refuses_nobody() -> None:
    timely = TimelyLimit(TARGET_S)
    now = tick(timely, 5.0, 1)
    now = tick(timely, 0.001, 1, now)
    tick(timely, 0.2, 1, now)
    assert timely.limit == math.inf


def test_a_lasting_delay_lets_fewer_in_than_there_are_but_never_none() -> None:
    timely = TimelyLimit(TARGET_S)
    now = tick(timely, 0.05, 5)
    assert timely.limit == MANY / 2, "the loop was late by twice the target"
    tick(timely, 0.05, 50, now)
    assert timely.limit == MANY / 2, "nobody has left since then"
    tick(timely, 0.05, 50, now, in_flight=1)
    assert timely.limit == 16


def test_it_lets_more_in_while_the_loop_is_on_time_again() -> None:
    timely = TimelyLimit(TARGET_S)
    now = tick(timely, 0.5, 20)
    shrunk = timely.limit
    now = tick(timely, 0.0, 100, now, in_flight=int(shrunk))
    assert 2 * shrunk < timely.limit < 4 * shrunk, "two seconds later"
    tick(timely, 0.0, 100_000, now)
    assert timely.limit == math.inf


def test_a_delay_long_after_is_again_a_single_one() -> None:
    timely = TimelyLimit(TARGET_S)
    now = tick(timely, 0.5, 20)
    now = tick(timely, 0.0, 500, now, in_flight=1)
    grown = timely.limit
    tick(timely, 0.5, 1, now, in_flight=1)
    assert timely.limit == grown


def test_without_a_target_nobody_is_refused() -> None:
    timely = TimelyLimit(0.0)
    tick(timely, 5.0, 100)
    assert timely.limit == math.inf


@pytest.mark.parametrize("answer_s", [0.2, 5.0])
def test_it_finds_how_many_the_processor_can_take(answer_s: float) -> None:
    """A made-up loop: five times as many come as it can serve, each in flight for `answer_s`.

    It takes turns as long as the work of all that are in flight, and can do 1,000 pieces of work a second; each
    request needs 20 a second. So it is on time with up to 50, and late in proportion beyond.
    """
    timely, now, in_flight, served = TimelyLimit(TARGET_S), 0.0, 0.0, []
    for _ in range(5000):
        in_flight -= in_flight * TICK_S / answer_s
        in_flight += max(0.0, min(5 * 50 * TICK_S / answer_s, timely.limit - in_flight))
        lag_s = TARGET_S * max(0.0, in_flight - 40) / 10
        now += TICK_S
        timely.observe(lag_s, int(in_flight), now)
        served.append(min(50.0, in_flight))
    steady = served[1000:]
    assert sum(steady) / len(steady) > 0.9 * 50
    assert in_flight < 1.5 * 50


def test_nobody_joins_a_line_whose_first_has_waited_for_too_long() -> None:
    now = 0.0
    admission = Admission(Metrics(), Intake(now=lambda: now))
    admission.limit(ServerSettings(max_in_flight=2, max_wait_ms=500))
    admission.intake.line_up(lambda _: None)
    assert not admission.is_full()
    now = 0.6
    assert admission.is_full()
    assert admission.refuses(has_waited=False)
    assert not admission.refuses(has_waited=True), "it has been let in"
    admission.limit(ServerSettings(max_in_flight=2, max_wait_ms=0))
    assert not admission.is_full()
    admission.intake.line_up(lambda _: None)
    assert admission.is_full(), "who waits in line will be in flight"


def test_few_refusals_are_followed_by_no_pause() -> None:
    pace = RefusalPace()
    assert [pace.pause_s(now / 100) for now in range(200)] == [0.0] * 200


def test_refusals_take_their_places_in_a_row() -> None:
    pace = RefusalPace()
    pauses = [pace.pause_s(7.0) for _ in range(4000)]
    assert pauses[:20] == pytest.approx([0.0] * 20, abs=1e-9)
    assert pauses[20:] == pytest.approx([(n + 1) / 1000 for n in range(3980)])
    assert pace.pause_s(20.0) == 0.0, "the row has ended meanwhile"


@pytest.mark.parametrize(("open_files", "requests"), [(64, 1), (256, 76), (1024, 384), (65536, 26188)])
def test_open_files_limit_the_requests(open_files: int, requests: int) -> None:
    assert affordable(open_files) == requests
    assert affordable(open_files) * 2 <= max(open_files - 64, 2)
