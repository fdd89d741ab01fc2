"""What one answer counts as, and that tallies add up."""

import json

import pytest

from loadtest.load.measure import WINDOW_S, Recorder
from loadtest.load.tally import Answer, Objective, Tally, sum_of

OBJECTIVE = Objective(ttft_s=0.5, e2e_s=2.0)


def answer(**changed):
    usual = {
        "endpoint": "/v1/chat/completions",
        "model": "cheap",
        "e2e_s": 1.0,
        "ttft_s": 0.2,
        "gaps_s": (0.1, 0.3),
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "overhead_s": 0.004,
        "reason": "threshold",
        "source": "classifier",
    }
    return Answer(**{**usual, **changed})


def tally(*answers):
    counted = Tally()
    for one in answers:
        counted.answered(one, OBJECTIVE)
    return counted


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({}, True),
        ({"ttft_s": 0.5, "e2e_s": 2.0}, True),
        ({"ttft_s": 0.51}, False),
        ({"e2e_s": 2.1}, False),
        ({"ttft_s": None, "e2e_s": 1.9}, True),
        ({"ttft_s": None, "e2e_s": 2.1}, False),
    ],
)
def test_goodput_is_what_begins_and_ends_in_time(changed, good):
    assert tally(answer(**changed)).total("good") == int(good)


def test_time_per_token_leaves_the_first_one_out():
    assert answer(ttft_s=0.2, e2e_s=1.0, completion_tokens=5).tpot_s == pytest.approx(0.2)
    assert answer(completion_tokens=1).tpot_s is None
    assert answer(completion_tokens=None).tpot_s is None
    assert answer(ttft_s=None).tpot_s is None


def test_every_gap_between_tokens_is_one_value():
    counted = tally(answer(), answer(model="strong", gaps_s=(0.5,)))
    assert counted.distributions["itl", "cheap"].count == 2
    assert counted.over("itl").count == 3


def test_tokens_that_nobody_counted_are_unknown_and_not_zero():
    counted = tally(answer(prompt_tokens=None), answer())
    assert counted.by_label("usage_unknown") == {"cheap": 1}
    assert counted.by_label("tokens", 2) == {"prompt": 10, "completion": 5}


def test_sums_and_messages_lose_nothing():
    one, other = tally(answer()), tally(answer(), answer(model="strong", reason="manual"))
    other.failed("/v1/chat/completions", "http_503")
    total = sum_of([one, Tally.from_wire(json.loads(json.dumps(other.to_wire())))])
    assert total.by_label("answers", 2) == {"cheap": 2, "strong": 1}
    assert total.by_label("decisions") == {"threshold": 2, "manual": 1}
    assert total.total("errors") == 1
    assert total.over("ttft").count == 3


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_steady_part_lies_between_the_warm_up_and_the_stop():
    clock = Clock()
    recorder = Recorder(clock)
    users = iter([5, 10, 10, 10, 3])
    for step in range(5):
        recorder.current.answered(answer(model=f"m{step}"), OBJECTIVE)
        clock.now += WINDOW_S
        recorder.cut(next(users))
        if step == 1:
            recorder.all_users_there()
        if step == 3:
            recorder.stopping()
    assert [list(window.tally.by_label("answers", 2)) for window in recorder.steady] == [["m2"], ["m3"]]
    assert [(window.start_s, window.end_s) for window in recorder.steady] == [(4.0, 6.0), (6.0, 8.0)]
    assert recorder.total().total("answers") == 5


def test_a_window_that_has_just_begun_goes_on():
    clock = Clock()
    recorder = Recorder(clock)
    clock.now += WINDOW_S / 4
    assert recorder.cut(1) is None
    recorder.current.failed("e", "timeout")
    clock.now += WINDOW_S
    window = recorder.cut(1)
    assert window is not None
    assert window.tally.total("errors") == 1


def test_a_new_run_starts_at_nothing():
    clock = Clock()
    recorder = Recorder(clock)
    recorder.current.failed("e", "timeout")
    clock.now += WINDOW_S
    recorder.cut(1)
    recorder.all_users_there()
    recorder.reset()
    assert (recorder.total().total("errors"), recorder.windows, recorder.warming_up) == (0, [], True)


def test_what_a_worker_has_reported_it_forgets():
    recorder = Recorder(Clock())
    recorder.current.failed("e", "timeout")
    assert recorder.take().total("errors") == 1
    assert recorder.take().total("errors") == 0
