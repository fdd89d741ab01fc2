"""What the router's process holds: memory and open files, and whether they grow with its requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

_PAGE_BYTES = 4096
_PER = 100_000


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the process, after so many requests."""

    requests: int
    rss_bytes: int
    descriptors: int

    @classmethod
    def of(cls, pid: int, requests: int) -> Reading:
        """Read it from /proc."""
        process = Path(f"/proc/{pid}")
        pages = int((process / "statm").read_text().split()[1])
        return cls(requests, pages * _PAGE_BYTES, len(list((process / "fd").iterdir())))


def rss_slope(readings: Sequence[Reading]) -> float:
    """Return the bytes by which memory grows in 100,000 requests: the line of least squares through the readings."""
    mean_requests = fmean(reading.requests for reading in readings)
    mean_rss = fmean(reading.rss_bytes for reading in readings)
    spread = sum((reading.requests - mean_requests) ** 2 for reading in readings)
    together = sum((r.requests - mean_requests) * (r.rss_bytes - mean_rss) for r in readings)
    return _PER * together / spread if spread else 0.0
