"""When a failed request may be sent again. Pure.

Only what has not reached the client is ever repeated; `router.http.forward` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

from router.errors import UpstreamError, UpstreamRefused, UpstreamTimeout

_EARNED_AT_MOST = 10.0


class Again(Enum):
    """Where a request may go after a failure."""

    NOWHERE = 0  # the request itself is at fault
    ELSEWHERE = 1  # to another server: this one is busy, or has had its time
    ANYWHERE = 2  # to another server, or to the same once more


def where(error: UpstreamError) -> Again:
    """Return where a request may go that has failed like this."""
    if isinstance(error, UpstreamRefused):
        if error.is_failure:
            return Again.ANYWHERE
        return Again.ELSEWHERE if error.status == 429 else Again.NOWHERE
    return Again.ELSEWHERE if isinstance(error, UpstreamTimeout) else Again.ANYWHERE


class RetryBudget:
    """Lets at most `ratio` of the requests be repeated, so that retries cannot bury an upstream that struggles.

    The first failure may always be repeated; what is not used is kept, up to ten retries.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._balance = 1.0 - ratio if ratio else 0.0

    def earn(self) -> None:
        """Note a request."""
        self._balance = min(self._balance + self._ratio, _EARNED_AT_MOST)

    def spend(self) -> bool:
        """Return whether one may be repeated; that uses it up."""
        if self._balance < 1.0 - 1e-9:
            return False
        self._balance -= 1.0
        return True


def pause_s(headers: Sequence[tuple[bytes, bytes]], now: datetime | None = None) -> float | None:
    """Return the seconds that a `Retry-After` asks for, as a number or as a date; None without one that can be read.

    A date counts from the answer's own `Date`, so that neither clock need be right; without one from `now`.
    """
    asked = _header(headers, b"retry-after")
    if asked is None:
        return None
    if asked.isdigit() and len(asked) < 10:
        return float(asked)
    until, since = _date(asked), _date(_header(headers, b"date") or "")
    if until is None:
        return None
    return max(0.0, (until - (since or now or datetime.now(UTC))).total_seconds())


def _header(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    return next((value.decode("latin-1").strip() for name, value in headers if name.lower() == wanted), None)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
