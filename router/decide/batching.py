"""Micro-batching: many callers, one call. Knows nothing of Triton or HTTP.

The first prompt opens a window; the batch leaves when it is full or the window closes, whichever is first. While a
call is under way the window stays open until that call should be back: few large calls cost less than many small ones.
While nothing waits, nothing runs. Prompts that wait for the same answer share one row.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Generic, TypeVar

from router.errors import ClassifierError

R = TypeVar("R")

_WEIGHT = 0.2
_LONGEST_WINDOW = 4  # times `max_queue_delay_s`: no call under way is waited for longer


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One call as it happened, for metrics: seconds, and rows by count."""

    rows: int
    shared: int  # callers beyond the first of each row
    failed: int  # rows without a result
    queue_s: tuple[float, ...]  # how long each row waited for the call
    call_s: float


@dataclass(slots=True)
class _Row(Generic[R]):
    text: str
    submitted: float
    futures: list[asyncio.Future[R]] = field(default_factory=list)

    def wanted(self) -> bool:
        return not all(future.done() for future in self.futures)

    def settle(self, result: R | Exception) -> None:
        for future in self.futures:
            if future.done():  # this caller gave up
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _settle_unanswered(rows: Sequence[_Row[R]]) -> None:
    for row in rows:
        row.settle(ClassifierError("unavailable", "The call to the classifier was cancelled."))


class MicroBatcher(Generic[R]):
    """Collects prompts for `send(texts) -> one result or exception per text`.

    At most `max_batch_size` rows a call, `max_in_flight` calls at once. While a call is free a row waits
    `max_queue_delay_s` for others, and up to four times as long for a call under way. Beyond `max_waiting` waiting rows
    `submit` raises `ClassifierError("queue_full")`. Who could not be answered within `patience_s` any more sees
    `ClassifierError("deadline")` at once. Calls that take over half of that become smaller: whoever waits for one call
    must have time for the next, and a classifier that is slow by the row is late with all rows of a large one.
    """

    def __init__(
        self,
        send: Callable[[Sequence[str]], Awaitable[Sequence[R | Exception]]],
        *,
        max_batch_size: int,
        max_queue_delay_s: float,
        max_waiting: int,
        max_in_flight: int,
        patience_s: float = math.inf,
        observe: Callable[[BatchReport], None] = lambda _: None,
        queue_changed: Callable[[int], None] = lambda _: None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._send = send
        self._max_batch_size = max_batch_size
        self._rows = max_batch_size  # of a call, as many as are answered in time
        self._max_queue_delay_s = max_queue_delay_s
        self._max_waiting = max_waiting
        self._max_in_flight = max_in_flight
        self._patience_s = patience_s
        self._call_s = 0.0  # how long a call takes, the last ones counting most
        self._last_call = -math.inf  # when the newest call left
        self._observe = observe
        self._queue_changed = queue_changed
        self._now = now
        self._waiting: dict[str, _Row[R]] = {}
        self._window: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Rows that wait for a call."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._calls)

    def submit(self, text: str) -> asyncio.Future[R]:
        """Return a future of this text's result. Cancelling it drops the row unless another caller wants it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        row = self._waiting.get(text)
        if row is None:
            if len(self._waiting) >= self._max_waiting:
                raise ClassifierError("queue_full", f"{self._max_waiting} prompts wait for the classifier already.")
            row = self._waiting[text] = _Row(text, self._now())
            self._queue_changed(1)
        row.futures.append(future)
        if len(self._waiting) >= self._rows:
            self._flush()
        elif self._window is None and len(self._calls) < self._max_in_flight:
            self._window = loop.call_later(self._window_s(), self._flush)
        return future

    def _window_s(self) -> float:
        """Return how long to collect: until the newest call under way should be back, within limits."""
        delay_s = self._max_queue_delay_s
        if not self._calls:
            return delay_s
        back_in_s = self._last_call + self._call_s - self._now()
        return min(max(delay_s, back_in_s), _LONGEST_WINDOW * delay_s)

    async def close(self) -> None:
        """Cancel what is under way and fail what waits; callers see `ClassifierError("unavailable")`."""
        if self._window is not None:
            self._window.cancel()
            self._window = None
        rows, self._waiting = list(self._waiting.values()), {}
        self._queue_changed(-len(rows))
        _settle_unanswered(rows)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _flush(self) -> None:
        """Send what waits, as far as calls are free; what must stay leaves as soon as a call has ended."""
        if self._window is not None:
            self._window.cancel()
            self._window = None
        self._drop_hopeless()
        while self._waiting and len(self._calls) < self._max_in_flight:
            batch = self._take()
            if batch:
                self._last_call = self._now()
                call = asyncio.create_task(self._call(batch))
                self._calls.add(call)
                call.add_done_callback(partial(self._ended, batch))

    def _drop_hopeless(self) -> None:
        """Fail the oldest rows that would have no answer in time even if nobody else came.

        The next batch leaves in any case: whether calls have become faster shows only when there are some.
        """
        at_once = self._rows * self._max_in_flight
        while len(self._waiting) > self._rows:
            oldest = next(iter(self._waiting.values()))
            calls_to_come = 1 + (len(self._waiting) - 1) // at_once
            if oldest.submitted + self._patience_s >= self._now() + calls_to_come * self._call_s:
                return
            del self._waiting[oldest.text]
            self._queue_changed(-1)
            oldest.settle(ClassifierError("deadline", "Too many prompts wait for the classifier."))

    def _take(self) -> list[_Row[R]]:
        """Take the newest rows that somebody still wants; forget the abandoned ones.

        Newest first, because under overload the oldest are too late already, and serving them makes all too late.
        """
        batch: list[_Row[R]] = []
        while self._waiting and len(batch) < self._rows:
            _, row = self._waiting.popitem()
            self._queue_changed(-1)
            if row.wanted():
                batch.append(row)
        return batch[::-1]

    def _ended(self, batch: list[_Row[R]], call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if call.cancelled():  # perhaps before its first step, so it could not settle its rows itself
            _settle_unanswered(batch)
        if self._window is None:
            self._flush()

    async def _call(self, batch: list[_Row[R]]) -> None:
        started = self._now()
        results: Sequence[R | Exception]
        try:
            results = await self._send([row.text for row in batch])
            if len(results) != len(batch):
                raise ClassifierError("invalid_output", f"{len(results)} results came for {len(batch)} prompts.")
        except Exception as error:
            results = [error] * len(batch)
        for row, result in zip(batch, results, strict=True):
            row.settle(result)
        self._learn(len(batch), call_s := self._now() - started)
        self._observe(
            BatchReport(
                rows=len(batch),
                shared=sum(len(row.futures) - 1 for row in batch),
                failed=sum(isinstance(result, Exception) for result in results),
                queue_s=tuple(started - row.submitted for row in batch),
                call_s=call_s,
            )
        )

    def _learn(self, rows: int, call_s: float) -> None:
        self._call_s += _WEIGHT * (call_s - self._call_s)
        if call_s > self._patience_s / 2:
            self._rows = max(1, self._rows // 2)
        elif rows >= self._rows:
            self._rows = min(self._max_batch_size, self._rows + 1)
