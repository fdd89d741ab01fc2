"""Many slow streams at once, read event by event; every chunk's age is taken where it arrives.

    python -m loadtest.bench.stream_load REQUEST_FILE   (a JSON document: see `Order`)

A process of its own, so that it can be pinned. The last line on stdout is one JSON document: `Streamed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import uvloop

_STAMP = re.compile(rb'"content":\s*"(\d+) "')
_DONE = b"[DONE]"
_TAIL = 256  # bytes of an event that may still be incomplete


@dataclass(frozen=True, slots=True)
class Order:
    """What to ask: so many streams, opened evenly over `ramp_s`, each to bring `chunks`; patience for all of them."""

    host: str
    port: int
    request: str
    streams: int
    chunks: int
    ramp_s: float
    patience_s: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came. Good streams brought every chunk and [DONE]; times in ms, of all chunks that arrived."""

    good: int
    failed: dict[str, int]
    chunks: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    chunk_p50_ms: float
    chunk_p99_ms: float
    cpu_s: float
    seconds: float


class Stream(asyncio.Protocol):
    """One stream. `ended` is set to "" for a good one, else to what was wrong."""

    def __init__(self, request: bytes, chunks: int, ages: list[int], firsts: list[int]) -> None:
        self._request, self._expected, self._ages, self._firsts = request, chunks, ages, firsts
        self._unread = b""
        self._status = b""
        self._seen = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast(asyncio.Transport, transport)
        self._asked_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take the age of every chunk that is whole."""
        now = time.monotonic_ns()
        self._status = self._status or data[9:12]
        text = self._unread + data
        end = 0
        for stamp in _STAMP.finditer(text):
            if not self._seen:
                self._firsts.append(now - self._asked_ns)
            self._ages.append(now - int(stamp[1]))
            self._seen += 1
            end = stamp.end()
        is_done = text.find(_DONE, end) >= 0
        self._unread = text[max(end, len(text) - _TAIL) :]
        if is_done or self._status != b"200":
            self._end(self._verdict())

    def connection_lost(self, error: Exception | None) -> None:
        """Say so when the stream was not over."""
        self._end("cut off" if self._status else "no answer")

    def close(self) -> None:
        """Close the connection, if it still is open."""
        self._transport.close()

    def _verdict(self) -> str:
        if self._status != b"200":
            return f"status {self._status.decode(errors='replace')}"
        return "" if self._seen == self._expected else f"{self._seen} chunks instead of {self._expected}"

    def _end(self, what: str) -> None:
        if not self.ended.done():
            self.ended.set_result(what)


async def run(order: Order) -> Streamed:
    """Open all streams in their time, wait for all, and sum up."""
    loop = asyncio.get_running_loop()
    ages: list[int] = []
    firsts: list[int] = []
    began = loop.time()

    async def one(number: int) -> str:
        await asyncio.sleep(order.ramp_s * number / order.streams)
        try:
            async with asyncio.timeout_at(began + order.patience_s):
                _, stream = await loop.create_connection(
                    lambda: Stream(order.request.encode(), order.chunks, ages, firsts), order.host, order.port
                )
                with contextlib.closing(stream):
                    return await stream.ended
        except TimeoutError:
            return "not over in time"
        except OSError as error:
            return f"no connection: {error.strerror}"

    ends = Counter(await asyncio.gather(*(one(number) for number in range(order.streams))))
    return summary(ends, ages, firsts, cpu_s=time.process_time(), seconds=loop.time() - began)


def summary(ends: Counter[str], ages: list[int], firsts: list[int], *, cpu_s: float, seconds: float) -> Streamed:
    """Sum up; ages and times to the first chunk are in ns."""
    return Streamed(
        good=ends[""],
        failed={what: count for what, count in ends.items() if what},
        chunks=len(ages),
        ttft_p50_ms=quantile_ms(firsts, 0.5),
        ttft_p99_ms=quantile_ms(firsts, 0.99),
        chunk_p50_ms=quantile_ms(ages, 0.5),
        chunk_p99_ms=quantile_ms(ages, 0.99),
        cpu_s=round(cpu_s, 3),
        seconds=round(seconds, 3),
    )


def quantile_ms(values_ns: list[int], q: float) -> float:
    """Return a quantile in ms; NaN of nothing."""
    if not values_ns:
        return float("nan")
    ordered = sorted(values_ns)
    return round(ordered[min(int(q * len(ordered)), len(ordered) - 1)] / 1e6, 3)


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(run(Order(**json.loads(Path(sys.argv[1]).read_text())))))))
