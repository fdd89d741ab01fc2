"""Open-loop load: requests leave at their time, whether or not the earlier ones have been answered.

A closed loop slows down with its server and so hides that it is overloaded; this one does not. Connections are kept and
reused; a new one is opened when all are busy. Latency counts from the moment when the request was due.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

BROKEN = 0
"""The status of a request whose connection failed, or that had no answer when patience was over."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: its status, the moment when it was due, and how long its whole answer took; seconds."""

    status: int
    due_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of `rate` requests per second during `seconds`."""

    rate: float
    seconds: float
    samples: Sequence[Sample]

    @property
    def statuses(self) -> Counter[int]:
        """How many requests ended with each status."""
        return Counter(sample.status for sample in self.samples)

    def per_second(self, status: int, within_s: float = 60.0, after_s: float = 0.0) -> float:
        """Return the rate of answers with this status that took at most `within_s`, due after `after_s`."""
        good = [s for s in self.samples if s.status == status and s.took_s <= within_s and s.due_s >= after_s]
        return len(good) / (self.seconds - after_s)

    def quantile(self, q: float, status: int, after_s: float = 0.0) -> float:
        """Return a quantile of how long answers with this status took; NaN when there was none."""
        took = sorted(s.took_s for s in self.samples if s.status == status and s.due_s >= after_s)
        return took[min(int(q * len(took)), len(took) - 1)] if took else float("nan")


async def open_loop(
    port: int,
    request: bytes | Callable[[int], bytes],
    *,
    rate: float,
    seconds: float,
    patience_s: float = 10.0,
    connections: int = 4000,
) -> Result:
    """Send `request`, whole HTTP/1.1 bytes, `rate` times a second to 127.0.0.1; at most so many connections.

    A function gives the n-th request. A request that finds no connection free is counted as `BROKEN`.
    """
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    samples: list[Sample] = []
    waiting: set[asyncio.Task[None]] = set()
    opened = 0
    began = time.monotonic()

    async def ask(number: int) -> None:
        nonlocal opened
        due = number / rate
        status = BROKEN
        try:
            async with asyncio.timeout(patience_s):
                if idle:
                    connection = idle.pop()
                elif opened < connections:
                    opened += 1
                    _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
                else:
                    return
                status = await connection.ask(request(number) if callable(request) else request)
                if connection.usable:
                    idle.append(connection)
                else:
                    opened -= 1
        except (OSError, TimeoutError, ConnectionError):
            opened -= 1
        finally:
            samples.append(Sample(status, due, time.monotonic() - began - due))

    sent = 0
    while (now := time.monotonic() - began) < seconds:
        while sent / rate <= now:
            task = asyncio.create_task(ask(sent))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            sent += 1
        await asyncio.sleep(0.001)
    if waiting:
        await asyncio.wait(waiting)
    for connection in idle:
        connection.close()
    return Result(rate, seconds, samples)


def run_open_loop(port: int, request: bytes, *, rate: float, seconds: float) -> Result:
    """Do the same where no event loop runs."""
    return asyncio.run(open_loop(port, request, rate=rate, seconds=seconds))


def post(path: str, body: bytes) -> bytes:
    """Return a JSON request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


class _Connection(asyncio.Protocol):
    """One kept connection; reads answers that announce their length, or come in chunks."""

    def __init__(self) -> None:
        self.usable = True
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None

    async def ask(self, request: bytes) -> int:
        """Send a request and return the status of its answer; ConnectionError when there is none."""
        self._received.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Close it."""
        self.usable = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Collect an answer; only its head is looked at, and its end."""
        self._received += data
        end_of_head = self._received.find(b"\r\n\r\n")
        if end_of_head < 0 or self._answer is None or self._answer.done():
            return
        head = bytes(self._received[:end_of_head]).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        is_whole = len(self._received) >= end_of_head + 4 + int(length) if length else data.endswith(b"0\r\n\r\n")
        if is_whole:
            if b"connection: close" in head:
                self.close()
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed without an answer"))
