"""Who is let in: no more than can be answered in time. `http/protocol.py` asks before a request exists.

Two limits: how many requests are in flight, because each holds two open files, and how late the event loop is, because
a processor that is busy with too many requests answers none of them in time.
"""

from __future__ import annotations

from resource import RLIMIT_NOFILE, getrlimit
from time import monotonic

from router.http.asgi import ASGIApp, Receive, Scope, Send
from router.metrics import Metrics
from router.settings import ServerSettings

# Of the open files, what is not for requests in flight: libraries, listeners, and connections that are kept idle.
_OTHER_FILES = 64
_FILES_PER_REQUEST = 2.5


class Admission:
    """Lets requests in or refuses them; one for the life of a process, its limits are those of the last `limit`."""

    def __init__(self, metrics: Metrics) -> None:
        self.stopping = False
        self.in_flight = 0
        self.max_in_flight = 1
        self.shedder = Shedder()
        self._metrics = metrics

    def limit(self, settings: ServerSettings) -> int:
        """Take the limits over; return how many requests may be in flight."""
        self.max_in_flight = settings.max_in_flight or affordable(getrlimit(RLIMIT_NOFILE)[0])
        self.shedder.target_s = settings.max_lag_ms / 1000
        return self.max_in_flight

    def observe_lag(self, lag_s: float) -> None:
        """Learn how late the event loop is."""
        self.shedder.observe(lag_s, monotonic())
        self._metrics.admitted_share.set(self.shedder.share)

    def refuses(self) -> bool:
        """Return whether the next request must not come in; one that must not is counted."""
        reason = self._why_not()
        if reason is None:
            return False
        self._metrics.refused.labels(reason).inc()
        self._metrics.requests.labels("none", "none", "none", "overloaded").inc()
        return True

    def counted(self, app: ASGIApp) -> ASGIApp:
        """Return `app` with its requests in flight counted."""

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            self.in_flight += 1
            try:
                await app(scope, receive, send)
            finally:
                self.in_flight -= 1

        return counting

    def _why_not(self) -> str | None:
        if self.in_flight >= self.max_in_flight:
            return "in_flight"
        return None if self.shedder.admits() else "event_loop"


def affordable(open_files: int) -> int:
    """Return how many requests may be in flight when so many files may be open."""
    return max(1, int((open_files - _OTHER_FILES) / _FILES_PER_REQUEST))


class Shedder:
    """Says which new requests the event loop can take, from how late it is. Pure: time is told.

    While it is on time: all. Late for `_PATIENCE_S` without a break: a share that shrinks until it is on time, and
    grows again as long as it is. One delay, however long, refuses nobody: it is over by then.
    """

    _PATIENCE_S = 0.25
    _LEAST_SHARE = 0.02
    _SHRINK_AT_MOST = 0.5
    _GROW = 1.05

    def __init__(self, target_s: float = 0.0) -> None:
        self.target_s = target_s  # 0: never late enough
        self.share = 1.0
        self._late_since: float | None = None
        self._credit = 0.0

    def observe(self, lag_s: float, now: float) -> None:
        """Learn how late the event loop is at this moment."""
        if not self.target_s or lag_s <= self.target_s:
            self._late_since = None
            self.share = min(1.0, self.share * self._GROW)
            return
        if self._late_since is None:
            self._late_since = now
        if self.share < 1.0 or now - self._late_since >= self._PATIENCE_S:
            self.share = max(self._LEAST_SHARE, self.share * max(self._SHRINK_AT_MOST, self.target_s / lag_s))

    def admits(self) -> bool:
        """Return whether the next request is within the share, evenly spread over those that come."""
        if self.share >= 1.0:
            return True
        self._credit += self.share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
