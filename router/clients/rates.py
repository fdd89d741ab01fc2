"""How often a client may ask, over all workers together.

The library `limits` knows the notation and the strategy: a window opens with a client's first request, and so many
more may follow until it closes. Counts are in small files that all workers map into memory, because none of the
library's storages is shared by processes without a server of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from mmap import mmap
from pathlib import Path
from struct import Struct
from time import monotonic

import limits
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

_WINDOW = Struct("=qd")  # requests in the window, and when it closes


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a client stands with the narrowest of its limits, in requests and seconds."""

    limit: int
    remaining: int
    reset_s: float
    exceeded: bool

    @property
    def whole_reset_s(self) -> int:
        """Seconds until the window closes, rounded up: whoever comes then is let in."""
        return max(1, ceil(self.reset_s))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return it as OpenAI says it."""
        return [
            (b"x-ratelimit-limit-requests", b"%d" % self.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % self.remaining),
            (b"x-ratelimit-reset-requests", b"%ds" % self.whole_reset_s),
        ]


class Rates:
    """Counts requests in `directory`, which every worker is given. Counts outlast a reload, not a restart."""

    def __init__(self, directory: Path) -> None:
        self._limiter = FixedWindowRateLimiter(SharedWindows(directory))
        self._parsed: dict[str, list[limits.RateLimitItem]] = {}

    def take(self, client: str, rate: str) -> Standing:
        """Count one request of this client and say where it stands with its `rate`."""
        items = self._parsed.get(rate)
        if items is None:
            items = self._parsed[rate] = limits.parse_many(rate)
        return narrowest([self._take(client, item) for item in items])

    def _take(self, client: str, item: limits.RateLimitItem) -> Standing:
        within = self._limiter.hit(item, client)
        closes, remaining = self._limiter.get_window_stats(item, client)
        return Standing(item.amount, remaining, max(0.0, closes - monotonic()), exceeded=not within)


def narrowest(standings: Sequence[Standing]) -> Standing:
    """Return the one that holds the client back: of those exceeded the longest, else the one nearest to it."""
    exceeded = [standing for standing in standings if standing.exceeded]
    if exceeded:
        return max(exceeded, key=lambda standing: standing.reset_s)
    return min(standings, key=lambda standing: standing.remaining / standing.limit)


class SharedWindows(Storage):
    """One file for each limit of each client, under a lock that the system takes back from a worker that dies.

    Moments are `time.monotonic`, which is one clock for all processes and which nobody sets.
    """

    STORAGE_SCHEME = None

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._windows: dict[str, tuple[int, mmap]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        """What can go wrong here, for the library."""
        return OSError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count `amount` and return the count of the window, which a first request opens for `expiry` seconds."""
        file, window = self._window(key)
        with _locked(file):
            count, closes = _WINDOW.unpack_from(window)
            now = monotonic()
            if now >= closes:
                count, closes = 0, now + expiry
            _WINDOW.pack_into(window, 0, count + amount, closes)
        return int(count) + amount

    def get(self, key: str) -> int:
        """Return the count of the window that is open, 0 when none is."""
        count, closes = self._read(key)
        return count if monotonic() < closes else 0

    def get_expiry(self, key: str) -> float:
        """Return when the window closes."""
        return self._read(key)[1]

    def clear(self, key: str) -> None:
        """Close the window."""
        file, window = self._window(key)
        with _locked(file):
            _WINDOW.pack_into(window, 0, 0, 0.0)

    def check(self) -> bool:
        """Say whether counting works: as long as the directory is there."""
        return self._directory.is_dir()

    def reset(self) -> int | None:
        """Close every window that this process knows."""
        for key in self._windows:
            self.clear(key)
        return len(self._windows)

    def _read(self, key: str) -> tuple[int, float]:
        """Return a window without its lock: this is only told, and it was decided by `incr`."""
        count, closes = _WINDOW.unpack_from(self._window(key)[1])
        return int(count), float(closes)

    def _window(self, key: str) -> tuple[int, mmap]:
        known = self._windows.get(key)
        if known is None:
            self._directory.mkdir(exist_ok=True)
            file = os.open(self._directory / sha256(key.encode()).hexdigest(), os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(file, _WINDOW.size)
            known = self._windows[key] = file, mmap(file, _WINDOW.size)
        return known


@contextmanager
def _locked(file: int) -> Iterator[None]:
    fcntl.lockf(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)
