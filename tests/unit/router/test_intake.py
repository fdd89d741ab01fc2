"""Who begins in which turn of the event loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from router.http.intake import Intake

A_TURN = 16


class Turns:
    """An event loop that turns only when it is told to, at a told time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self.called.append(partial(callback, *arguments))

    def turn(self, seconds: float = 0.001) -> None:
        self.now += seconds
        called, self.called = self.called, []
        for callback in called:
            callback()


class Line:
    """Requests by number, and those that have begun."""

    def __init__(self) -> None:
        self.loop = Turns()
        self.intake = Intake(now=lambda: self.loop.now)
        self.begun: list[int] = []
        self.waited_s: list[float] = []

    def come(self, *numbers: int) -> None:
        for number in numbers:
            if self.intake.lets_begin(self.loop.call_soon):
                self.begun.append(number)
            else:
                self.intake.line_up(partial(self._begin, number))

    def _begin(self, number: int, waited_s: float) -> None:
        self.begun.append(number)
        self.waited_s.append(waited_s)


def test_a_few_begin_at_once_the_others_turn_by_turn_as_they_came() -> None:
    line = Line()
    line.come(*range(40))
    assert line.begun == list(range(16))
    assert line.intake.waiting == 24
    line.loop.turn()
    assert line.begun == list(range(32))
    line.come(40)
    assert line.intake.waiting == 9, "whoever comes later does not overtake"
    line.loop.turn()
    line.loop.turn()
    assert line.begun == list(range(41))
    assert line.intake.waiting == 0


def test_each_turn_has_its_own_places() -> None:
    line = Line()
    for number in range(100):
        line.come(number)
        assert line.begun[-1] == number
        line.loop.turn()


def test_an_idle_loop_is_not_kept_awake() -> None:
    line = Line()
    line.come(*range(20))
    for _ in range(4):
        line.loop.turn()
    assert line.loop.called == []
    line.come(20)
    assert line.begun == list(range(21))


def test_more_begin_where_turns_are_long() -> None:
    line = Line()
    line.come(*range(1000))
    line.loop.turn(seconds=0.02)
    assert len(line.begun) == A_TURN + 40, "two thousand a second"
    line.loop.turn(seconds=0.001)
    assert len(line.begun) == 2 * A_TURN + 40
    line.loop.turn(seconds=1.0)
    assert len(line.begun) == 2 * A_TURN + 40 + 64, "but not all at once"


def test_the_wait_is_told() -> None:
    line = Line()
    assert line.intake.waits_s() == 0.0
    line.come(*range(17))
    line.loop.now = 0.25
    assert line.intake.waits_s() == 0.25
    line.loop.turn(0.0)
    assert line.waited_s == [0.25]
    assert line.intake.waits_s() == 0.0


def test_who_fails_to_begin_holds_nobody_up() -> None:
    line = Line()
    line.come(*range(16))

    def fail(_: float) -> None:
        raise RuntimeError("no")

    line.intake.line_up(fail)
    line.come(16)
    try:
        line.loop.turn()
    except RuntimeError:
        line.loop.turn()
    assert line.begun[-1] == 16
