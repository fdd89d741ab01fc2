"""Begins a few requests in each turn of the event loop; the others wait in line, as they came.

What was begun is answered before more is begun. Where a thousand requests all go one step further in each turn, the
processor's cache holds nothing of a request any more when its next step comes, and each costs half as much again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

Begin = Callable[[float], None]
"""Begins a request that has waited for so many seconds."""

CallSoon = Callable[..., object]
"""An event loop's `call_soon`: what it is given is called in the loop's next turn."""


class Intake:
    """The line of one event loop. Whoever may not begin at once lines up, and is called when its turn comes."""

    _A_TURN = 16  # fewer leave the loop idle between its turns, more no longer fit into the cache
    _PER_S = 2000  # where other work makes the turns long, so many begin in them
    _AT_MOST = 64  # but requests that make a turn long themselves must not make the next one longer

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._line: deque[tuple[float, Begin]] = deque()
        self._places = self._A_TURN  # left in this turn, none while somebody waits
        self._turn_began = 0.0  # while somebody waits
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._line)

    def waits_s(self) -> float:
        """Return for how long the first in line has waited."""
        return self._now() - self._line[0][0] if self._line else 0.0

    def lets_begin(self, call_soon: CallSoon) -> bool:
        """Return whether one more may begin in this turn; if so, it has."""
        if not self._places:
            return False
        self._places -= 1
        if not self._scheduled:
            self._scheduled = True
            call_soon(self._next_turn, call_soon)
        return True

    def line_up(self, begin: Begin) -> None:
        """Wait for a turn; `lets_begin` has just said no, so that there is one to come."""
        now = self._now()
        if not self._line:
            self._turn_began = now
        self._line.append((now, begin))

    def _next_turn(self, call_soon: CallSoon) -> None:
        if not self._line:
            self._places, self._scheduled = self._A_TURN, False
            return
        call_soon(self._next_turn, call_soon)
        now = self._now()
        places = min(max(self._A_TURN, int((now - self._turn_began) * self._PER_S)), self._AT_MOST)
        called = min(places, len(self._line))
        self._places, self._turn_began = places - called, now
        for _ in range(called):
            since, begin = self._line.popleft()
            begin(now - since)
