"""What a soak fails for, and what it lets pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.soak.faults import FAULTS, SETTLING_S, Fault
from loadtest.soak.resources import Reading, rss_slope
from loadtest.soak.traffic import KINDS, Kind, Seen
from loadtest.soak.verdict import WARM_UP_REQUESTS, Run, Window, markdown, problems, summary

PLAIN, LEAVES = KINDS[0], next(kind for kind in KINDS if kind.leaves)
DOWN = Fault("down", lambda _: None, lambda _: None, frozenset({"503"}))
GROWS_BY = 10


def reading(requests: int, megabytes: float = 90, descriptors: int = 40) -> Reading:
    return Reading(requests, round(megabytes * 1e6), descriptors)


def run(*seen: Seen, **changed: object) -> Run:
    """A good run of these requests while a model was down from 100 to 110."""
    chats = sum(one.counted for one in seen)
    good = Run(
        minutes=10,
        seen=seen,
        windows=[Window(DOWN, 100, 110)],
        loaded=[reading(0), reading(WARM_UP_REQUESTS), reading(WARM_UP_REQUESTS + 100_000, 90.1)],
        idle=(reading(0), reading(100_000)),
        counted={"ok": chats},
        left_over={"queue_depth": 0},
        log_problems=[],
    )
    return replace(good, **changed)  # type: ignore[arg-type] # fields by their names


def seen(outcome: str, began: float, ended: float, kind: Kind = PLAIN) -> Seen:
    return Seen(kind, outcome, began, ended)


def test_what_is_expected_passes() -> None:
    assert problems(run(seen("ok", 0, 1), seen("left", 3, 4, LEAVES), seen("404", 5, 6, KINDS[-2]))) == []


@pytest.mark.parametrize(
    ("began", "ended", "explained"),
    [(90, 99, False), (90, 100, True), (105, 106, True), (110 + SETTLING_S, 130, True), (117, 130, False)],
)
def test_a_fault_explains_what_overlaps_it_and_a_little_after(began: float, ended: float, explained: bool) -> None:
    assert (problems(run(seen("503", began, ended))) == []) is explained


def test_a_fault_explains_its_own_outcomes_only() -> None:
    [problem] = problems(run(seen("500", 101, 102), seen("500", 103, 104)))
    assert problem == "2 requests of kind 'plain' ended as '500', which nothing explains."


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"counted": {"ok": 2}}, "seen 1 chats end, the router has counted 2"),
        ({"counted": {"internal_error": 1}}, "1 requests ended as internal_error"),
        ({"left_over": {"queue_depth": 3}}, "queue_depth is 3 at the end"),
        (
            {"loaded": [reading(WARM_UP_REQUESTS), reading(WARM_UP_REQUESTS + 100_000, 90 + GROWS_BY)]},
            "Memory grows by 10.00 MB in 100,000 requests",
        ),
        ({"idle": (reading(0), reading(9, descriptors=46))}, "+6 open files"),
        ({"idle": (reading(0), reading(9, descriptors=34))}, "-6 open files"),
        ({"log_problems": ["The router has logged a traceback."]}, "logged a traceback"),
    ],
)
def test_what_a_run_fails_for(changed: dict[str, object], words: str) -> None:
    report = summary(run(seen("ok", 0, 1), **changed))
    assert not report["passed"]
    [problem] = report["problems"]
    assert words in problem
    assert problem in markdown(report)


def test_memory_may_rise_by_what_the_allocator_takes_in_a_short_run() -> None:
    assert problems(run(seen("ok", 0, 1), loaded=[reading(0), reading(5_000, 90.5)])) == []


def test_memory_may_rise_during_the_warm_up_only() -> None:
    later = [reading(WARM_UP_REQUESTS + 1000 * step, 95) for step in range(200)]
    assert problems(run(seen("ok", 0, 1), loaded=[reading(0), *later])) == []
    still = [reading(one.requests, 95 + one.requests / 50_000) for one in later]
    assert "Memory grows by 2.00 MB" in problems(run(seen("ok", 0, 1), loaded=still))[0]


def test_the_slope_is_that_of_the_line_through_the_readings() -> None:
    rising = [reading(requests, 90 + requests / 10_000) for requests in range(0, 100_000, 1000)]
    assert rss_slope(rising) == pytest.approx(10e6)
    assert rss_slope([reading(7)]) == 0


def test_no_name_is_twice() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({kind.name for kind in KINDS}) == len(KINDS)
