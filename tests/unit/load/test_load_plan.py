"""Shapes and open arrivals."""

import random

import pytest

from loadtest.load.open_loop import PoissonClock
from loadtest.load.shapes import SHAPES, users_at


def course(shape, users=100, duration_s=50):
    return [users_at(shape, second, users=users, duration_s=duration_s) for second in range(duration_s)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_reaches_all_users_and_ends(shape):
    users = course(shape)
    assert max(users) >= 98
    assert min(users) >= 1
    assert users_at(shape, 50, users=100, duration_s=50) is None


def test_steps_are_equal():
    assert sorted(set(course("steps"))) == [20, 40, 60, 80, 100]
    assert course("steps") == sorted(course("steps"))


def test_a_spike_comes_and_goes():
    users = course("spike")
    assert (users[0], users[25], users[-1]) == (10, 100, 10)
    assert users.count(100) == 10


def test_a_ramp_rises_all_the_way():
    users = course("ramp")
    assert users == sorted(users)
    assert users[25] == 50


def test_open_arrivals_keep_their_rate_when_nothing_is_late():
    now, sent = 0.0, 0
    clock = PoissonClock(10.0, now, random.Random(3))
    while now < 500:
        wait, late = clock.wait_s(now)
        assert late == pytest.approx(0.0, abs=1e-9)
        now += wait
        sent += 1
    assert sent == pytest.approx(5000, rel=0.05)


def test_what_is_late_leaves_at_once_and_delays_nothing_after_it():
    clock = PoissonClock(10.0, 0.0, random.Random(3))
    due = PoissonClock(10.0, 0.0, random.Random(3))
    moments = [0.0]
    for _ in range(30):
        moments.append(moments[-1] + due.wait_s(moments[-1])[0])
    waits = [clock.wait_s(2.0) for _ in range(30)]
    for (wait, late), moment in zip(waits, moments[1:], strict=True):
        assert wait == pytest.approx(max(0.0, moment - 2.0))
        assert late == pytest.approx(max(0.0, 2.0 - moment))
