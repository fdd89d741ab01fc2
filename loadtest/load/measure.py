"""The course of one run: tallies of two seconds each, so that it can be drawn and its steady part reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.load.tally import Tally, sum_of

WINDOW_S = 2.0


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in one stretch of the run; seconds since its start."""

    start_s: float
    end_s: float
    users: int
    tally: Tally


class Recorder:
    """Takes what is counted now and cuts it into windows. Times are those of the given clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Start a new run."""
        self.current = Tally()
        self.windows: list[Window] = []
        self._started, self._cut_s = self._clock(), 0.0
        self._steady_from: int | None = None
        self._steady_until: int | None = None

    def take(self) -> Tally:
        """Return what was counted since the last call and forget it: how a worker reports."""
        taken, self.current = self.current, Tally()
        return taken

    def cut(self, users: int) -> Window | None:
        """End the present window and return it; `users` are there now. None: it has only just begun and goes on."""
        now = self._clock() - self._started
        if now - self._cut_s < WINDOW_S / 2:
            return None
        window = Window(self._cut_s, now, users, self.take())
        self.windows.append(window)
        self._cut_s = now
        return window

    def all_users_there(self) -> None:
        """Note the end of the warm-up: the steady part begins with the next window."""
        self._steady_from = len(self.windows)

    def stopping(self) -> None:
        """Note that no new requests leave from now on: the steady part ends with the last window."""
        self._steady_until = len(self.windows)

    @property
    def warming_up(self) -> bool:
        """Whether users are still being added for the first time."""
        return self._steady_from is None

    @property
    def steady(self) -> list[Window]:
        """The windows between warm-up and stop, of which the report's figures are."""
        return self.windows[self._steady_from or 0 : self._steady_until]

    def total(self) -> Tally:
        """Return everything of this run, the present window included."""
        return sum_of([*(window.tally for window in self.windows), self.current])
