"""Open-loop load: requests leave at their time, whether or not the earlier ones have been answered.

A closed loop slows down with its server and so hides that it is overloaded; this one does not. Connections are kept and
reused; a new one is opened when all are busy. Latency counts from the moment when the request was due.
The closed loop beside it finds a capacity.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

import uvloop

BROKEN = 0
"""The status of a request whose connection failed, or that had no answer when patience was over."""

Request = bytes | Callable[[int], bytes]
"""Whole HTTP/1.1 bytes, the same each time or those of the n-th request."""

_TICK_S = 0.001


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
    request: Request,
    *,
    rate: float,
    seconds: float,
    patience_s: float = 10.0,
    connections: int = 4000,
) -> Result:
    """Send `request` `rate` times a second to 127.0.0.1; at most so many connections.

    A request that finds no connection free is counted as `BROKEN`.
    """
    clients = _Clients(port, connections)
    sent = 0
    while (now := clients.now()) < seconds:
        while sent / rate <= now:
            clients.ask(request(sent) if callable(request) else request, due_s=sent / rate)
            sent += 1
        clients.give_up(due_before_s=now - patience_s)
        await asyncio.sleep(_TICK_S)
    await clients.finish(patience_s)
    return Result(rate, seconds, clients.samples)


async def closed_loop(port: int, request: Request, *, clients: int, seconds: float) -> Result:
    """Let so many clients send `request`, each again as soon as it has its answer; the rate is what came of it."""
    numbers = count()

    def following() -> bytes:
        return request(next(numbers)) if callable(request) else request

    waiting = _Clients(port, clients, again=following)
    for _ in range(clients):
        waiting.ask(following(), due_s=0.0)
    await asyncio.sleep(seconds)
    in_time = [sample for sample in waiting.samples if sample.due_s + sample.took_s <= seconds]
    await waiting.finish(patience_s=0.0)  # what this cuts off has not failed
    return Result(len(in_time) / seconds, seconds, in_time)


def run_open_loop(port: int, request: bytes, *, rate: float, seconds: float) -> Result:
    """Do the same where no event loop runs."""
    return uvloop.run(open_loop(port, request, rate=rate, seconds=seconds))


def post(path: str, body: bytes) -> bytes:
    """Return a JSON request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


class _Clients:
    """The connections to one server, and what became of the requests on them."""

    def __init__(self, port: int, most: int, *, again: Callable[[], bytes] | None = None) -> None:
        self.samples: list[Sample] = []
        self._port, self._most, self._again = port, most, again
        self._idle: list[_Connection] = []
        self._busy: dict[_Connection, float] = {}  # when its request was due, the oldest first
        self._opening: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def ask(self, request: bytes, due_s: float) -> None:
        """Send a request on a connection that is free, or on a new one."""
        if self._idle:
            connection = self._idle.pop()
            self._busy[connection] = due_s
            connection.ask(request)
        elif len(self._busy) < self._most:
            connection = _Connection(self, request)
            self._busy[connection] = due_s
            opening = asyncio.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        else:
            self._ended(BROKEN, due_s)

    async def _open(self, connection: _Connection) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self._port)
        except OSError:
            self.lost(connection)

    def answered(self, connection: _Connection, status: int) -> None:
        """Note an answer; its connection is free again."""
        due_s = self._busy.pop(connection, None)
        if due_s is not None:
            self._ended(status, due_s)
        if due_s is None or connection.closes:  # nobody had asked, or nobody may ask again
            connection.close()
            return
        self._idle.append(connection)
        if self._again is not None:
            self.ask(self._again(), due_s=self.now())

    def lost(self, connection: _Connection) -> None:
        """Note that a connection has gone, and its request with it."""
        due_s = self._busy.pop(connection, None)
        if due_s is not None:
            self._ended(BROKEN, due_s)
        elif connection in self._idle:
            self._idle.remove(connection)

    def give_up(self, due_before_s: float) -> None:
        """Close the connections whose requests are older than that."""
        while self._busy:
            connection, due_s = next(iter(self._busy.items()))
            if due_s >= due_before_s:
                return
            connection.close()
            self.lost(connection)

    async def finish(self, patience_s: float) -> None:
        """Wait for the answers that are still to come, but not for ever, and close everything."""
        ends = self.now() + patience_s
        while self._busy and self.now() < ends:  # noqa: ASYNC110 - an event would cost something for each request
            await asyncio.sleep(_TICK_S)
        self.give_up(due_before_s=math.inf)
        for connection in self._idle:
            connection.close()
        for opening in self._opening:
            opening.cancel()

    def _ended(self, status: int, due_s: float) -> None:
        self.samples.append(Sample(status, due_s, self.now() - due_s))


class _Connection(asyncio.Protocol):
    """One kept connection; reads answers that announce their length, or come in chunks."""

    _transport: asyncio.Transport | None = None

    def __init__(self, clients: _Clients, first: bytes) -> None:
        self.closes = False  # after this answer
        self._clients = clients
        self._first = first
        self._received = bytearray()

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._received.clear()
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        """Close it, without another word."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self.ask(self._first)

    def data_received(self, data: bytes) -> None:
        """Collect an answer; only its head is looked at, and its end."""
        self._received += data
        end_of_head = self._received.find(b"\r\n\r\n")
        if end_of_head < 0:
            return
        head = bytes(self._received[:end_of_head]).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        is_whole = len(self._received) >= end_of_head + 4 + int(length) if length else data.endswith(b"0\r\n\r\n")
        if is_whole:
            self.closes = b"connection: close" in head
            self._clients.answered(self, int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        self._clients.lost(self)
