"""Who is let in: no more than can be answered in time. `http/protocol.py` asks before a request exists.

Two limits on the requests in flight: how many can hold their two open files, and how many the event loop is on time
with, because a processor that is busy with too many requests answers none of them in time. Nor does the line of those
who wait for their turn grow on when the first has waited for too long.
"""

from __future__ import annotations

import math
from resource import RLIMIT_NOFILE, getrlimit
from time import monotonic

from router.http.asgi import ASGIApp, Receive, Scope, Send
from router.http.intake import Intake
from router.metrics import Metrics
from router.settings import ServerSettings

# Of the open files, what is not for requests in flight: libraries, listeners, and connections that are kept idle.
_OTHER_FILES = 64
_FILES_PER_REQUEST = 2.5


class Admission:
    """Lets requests in or refuses them; one for the life of a process, its limits are those of the last `limit`."""

    def __init__(self, metrics: Metrics, intake: Intake | None = None) -> None:
        self.stopping = False
        self.in_flight = 0
        self.max_in_flight = 1
        self.timely = TimelyLimit()
        self.intake = intake or Intake()
        self._max_wait_s = math.inf
        self._pace = RefusalPace()
        self._metrics = metrics

    def limit(self, settings: ServerSettings) -> int:
        """Take the limits over; return how many requests may be in flight."""
        self.max_in_flight = settings.max_in_flight or affordable(getrlimit(RLIMIT_NOFILE)[0])
        self.timely.target_s = settings.max_lag_ms / 1000
        self._max_wait_s = settings.max_wait_ms / 1000 or math.inf
        self._tell_limit()
        return self.max_in_flight

    def observe_lag(self, lag_s: float) -> None:
        """Learn how late the event loop is."""
        self.timely.observe(lag_s, self.in_flight, monotonic())
        self._tell_limit()

    def is_full(self) -> bool:
        """Return whether nothing more is let in, not even to wait."""
        return self._why_not(has_waited=False) is not None

    def refuses(self, *, has_waited: bool) -> bool:
        """Return whether the next request must not come in; one that must not is counted."""
        reason = self._why_not(has_waited=has_waited)
        if reason is None:
            return False
        self._metrics.refused.labels(reason).inc()
        self._metrics.requests.labels("none", "none", "none", "overloaded").inc()
        return True

    def pause_s(self) -> float:
        """Return how long to leave alone whoever was refused just now."""
        return self._pace.pause_s(monotonic())

    def counted(self, app: ASGIApp) -> ASGIApp:
        """Count a request as in flight from now on; return `app`, which ends that."""
        self.in_flight += 1

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            finally:
                self.in_flight -= 1

        return counting

    def _why_not(self, *, has_waited: bool) -> str | None:
        let_in = self.in_flight + (0 if has_waited else self.intake.waiting)
        if let_in >= self.max_in_flight:
            return "in_flight"
        if let_in >= self.timely.limit:
            return "event_loop"
        return "line" if not has_waited and self.intake.waits_s() > self._max_wait_s else None

    def _tell_limit(self) -> None:
        self._metrics.in_flight_limit.set(min(self.max_in_flight, self.timely.limit))


def affordable(open_files: int) -> int:
    """Return how many requests may be in flight when so many files may be open."""
    return max(1, int((open_files - _OTHER_FILES) / _FILES_PER_REQUEST))


class TimelyLimit:
    """How many requests may be in flight, by how late the event loop is. Pure: time is told.

    While it is on time: more and more. Late for `_PATIENCE_S` without a break: fewer than there are, in proportion,
    until it is on time. One delay, however long, refuses nobody: it is over by then.
    """

    _PATIENCE_S = 0.25
    _LEAST = 16.0  # so few are not what makes it late
    _SHRINK_AT_MOST = 0.5
    _GROW = 1.01

    def __init__(self, target_s: float = 0.0) -> None:
        self.target_s = target_s  # 0: never late enough
        self.limit = math.inf
        self._late_since: float | None = None

    def observe(self, lag_s: float, in_flight: int, now: float) -> None:
        """Learn how late the event loop is at this moment, with so many requests in flight."""
        if not self.target_s or lag_s <= self.target_s:
            self._late_since = None
            self.limit *= self._GROW
            return
        if self._late_since is None:
            self._late_since = now
        if in_flight >= self.limit or now - self._late_since >= self._PATIENCE_S:
            timely = in_flight * max(self._SHRINK_AT_MOST, self.target_s / lag_s)
            self.limit = max(self._LEAST, min(self.limit, timely))


class RefusalPace:
    """How long to leave a refused connection alone, so that refusals leave time for answers. Pure: time is told.

    A refusal costs 0.03 ms of the processor, nearly half of the cheapest answer. Each takes its place in a row of
    `_PER_S`; nobody waits while the row is short.
    """

    _PER_S = 1000.0
    _SHORT_S = 0.02

    def __init__(self) -> None:
        self._end = -math.inf

    def pause_s(self, now: float) -> float:
        """Take the next place; return the seconds until it is reached."""
        self._end = max(self._end, now - self._SHORT_S) + 1 / self._PER_S
        return max(0.0, self._end - now)
