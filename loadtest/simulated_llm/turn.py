"""Sending one planned answer in its own time, with whatever fault it was told to show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from loadtest.simulated_llm import wire
from loadtest.simulated_llm.answer import Answer
from loadtest.simulated_llm.exchange import Exchange, Headers
from loadtest.simulated_llm.faults import HUGE_BYTES, Fault
from loadtest.simulated_llm.request import ChatRequest


@dataclass(frozen=True, slots=True)
class Turn:
    """All that is known before the first byte leaves; `started` is a time of `time.perf_counter`."""

    request: ChatRequest
    answer: Answer
    envelope: wire.Envelope
    fault: Fault
    headers: Headers
    started: float

    def until(self, second: float) -> float:
        """Return how many seconds are left until this second of the request."""
        return self.started + second - time.perf_counter()

    def headers_now(self) -> Headers:
        """Return the headers with the milliseconds spent so far."""
        spent_ms = int((time.perf_counter() - self.started) * 1000)
        return [(b"openai-processing-ms", b"%d" % spent_ms), *self.headers]


async def send_whole(exchange: Exchange, turn: Turn) -> None:
    """Wait as long as the answer takes to write, then send it at once."""
    await exchange.pause(turn.until(turn.answer.duration_s))
    body = _faulty_body(wire.completion(turn.envelope, turn.answer), turn.fault)
    sent = turn.fault.die_after_chunks
    if sent is None:
        await exchange.answer(200, body, turn.headers_now())
        return
    length = (b"content-length", b"%d" % len(body))
    await exchange.start(200, [(b"content-type", b"application/json"), length, *turn.headers_now()])
    await exchange.write(body[: min(sent, len(body) - 1)])


async def send_stream(exchange: Exchange, turn: Turn) -> None:
    """Send every event when it is due, one write each."""
    await exchange.pause(turn.until(turn.answer.ttft_s))
    content_type = (b"content-type", b"text/event-stream; charset=utf-8")
    await exchange.start(200, [content_type, *turn.headers_now()])
    for number, (second, event) in enumerate(_events(turn)):
        await exchange.pause(turn.until(second))
        if number == turn.fault.die_after_chunks:
            if turn.fault.die_mid_event:
                await exchange.write(event[: len(event) // 2])
            return  # without a last write, which makes the server close the socket
        await exchange.write(event)
    await exchange.write(b"", last=True)


def _events(turn: Turn) -> Iterator[tuple[float, bytes]]:
    """Yield every event with the second of the request at which it is due."""
    envelope, answer, fault, usage = turn.envelope, turn.answer, turn.fault, turn.request.include_usage
    first = answer.ttft_s
    if fault.error_event:
        error = wire.error(500, "told to send an error event", code="simulated_fault")
        yield first, b"data: " + error + b"\n\n"
    for event in wire.opening_events(envelope, answer, include_usage=usage):
        yield first, _huge(event) if fault.huge else event
    if fault.malformed:
        yield first, wire.BROKEN_EVENT
    for step, events in enumerate(wire.token_events(envelope, answer, include_usage=usage)):
        for event in events:
            yield first + step * answer.gap_s, event
    for event in wire.closing_events(envelope, answer, include_usage=usage):
        yield answer.duration_s, event


def _faulty_body(body: bytes, fault: Fault) -> bytes:
    if fault.error_event:
        return wire.error(500, "told to answer an error object", code="simulated_fault")
    if fault.malformed:
        return body[: len(body) // 2]
    return _huge(body) if fault.huge else body


def _huge(data: bytes) -> bytes:
    """Return the JSON in `data` with a very long text in its first content field."""
    return data.replace(b'"content":"', b'"content":"' + b"x" * HUGE_BYTES, 1)
