"""The open loop: what it counts, and that it keeps its rate against a server that does not answer."""

from __future__ import annotations

import math
import socket

from loadtest.constant_rate import BROKEN, Result, Sample, open_loop, post

RESULT = Result(
    rate=2,
    seconds=4,
    samples=[Sample(200, 0.5, 0.1), Sample(200, 1.5, 0.3), Sample(200, 2.5, 2.0), Sample(503, 3.0, 0.01)],
)


def test_what_counts() -> None:
    assert RESULT.statuses == {200: 3, 503: 1}
    assert RESULT.per_second(200) == 3 / 4
    assert RESULT.per_second(200, within_s=1) == 2 / 4
    assert RESULT.per_second(200, within_s=1, after_s=1) == 1 / 3
    assert RESULT.quantile(0.5, 200) == 0.3
    assert RESULT.quantile(0.99, 200) == 2.0
    assert math.isnan(RESULT.quantile(0.5, 404))


async def test_it_does_not_wait_for_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = await open_loop(silent.getsockname()[1], post("/", b"{}"), rate=100, seconds=0.5, patience_s=0.2)
    assert set(result.statuses) == {BROKEN}
    assert 45 <= len(result.samples) <= 50


async def test_a_request_that_finds_no_connection_is_counted_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        result = await open_loop(port, post("/", b"{}"), rate=100, seconds=0.3, patience_s=0.5, connections=3)
    assert set(result.statuses) == {BROKEN}
    assert 25 <= len(result.samples) <= 30
