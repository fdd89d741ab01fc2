"""The generator of slow streams and its upstream: each byte is real, only the time is short."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from loadtest.bench.drip import Dripping, Pace
from loadtest.bench.stream_load import Order, Streamed, quantile_ms, run, summary
from loadtest.bench.streams import Turn, row

REQUEST = 'POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 16\r\n\r\n{"stream": true}'
PACE = Pace(chunks=3, interval_s=0.01, delay_s=0.0)


def order(port: int, **fields: Any) -> Order:
    values: dict[str, Any] = {"streams": 5, "chunks": 3, "ramp_s": 0.05, "patience_s": 20.0}
    return Order(host="127.0.0.1", port=port, request=REQUEST, **(values | fields))


async def stream(protocol: type[asyncio.Protocol] | None = None, **fields: Any) -> Streamed:
    factory = protocol or (lambda: Dripping(PACE))
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    async with server:
        streamed = await run(order(server.sockets[0].getsockname()[1], **fields))
    await asyncio.sleep(0.05)  # the server's side hears that the clients have gone
    return streamed


async def test_all_chunks_of_all_streams_are_seen_and_none_is_older_than_the_run() -> None:
    streamed = await stream()
    assert (streamed.good, streamed.failed, streamed.chunks) == (5, {}, 15)
    assert 0 <= streamed.chunk_p50_ms <= streamed.chunk_p99_ms <= streamed.seconds * 1e3
    assert streamed.ttft_p50_ms >= 10 * 0.9


async def test_a_stream_with_too_few_chunks_has_failed() -> None:
    streamed = await stream(chunks=4)
    assert (streamed.good, streamed.failed) == (0, {"3 chunks instead of 4": 5})


async def test_a_refusal_is_told_by_its_status() -> None:
    class Refuses(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")  # type: ignore[attr-defined]

    assert (await stream(Refuses)).failed == {"status 503": 5}


async def test_a_stream_that_is_cut_off_has_failed() -> None:
    class Cuts(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(b"HTTP/1.1 200 OK\r\n\r\n")  # type: ignore[attr-defined]
            transport.close()

    assert (await stream(Cuts)).failed == {"cut off": 5}


async def test_patience_has_an_end() -> None:
    assert (await stream(asyncio.Protocol, patience_s=0.2)).failed == {"not over in time": 5}


def test_quantiles_are_of_the_sorted_values() -> None:
    values = [3_000_000, 1_000_000, 2_000_000]
    assert (quantile_ms(values, 0.5), quantile_ms(values, 0.99)) == (2.0, 3.0)


def test_a_row_has_the_least_cpu_and_the_memory_of_the_first_turn() -> None:
    one = summary(Counter({"": 10}), [1_000_000] * 200, [200_000_000] * 10, cpu_s=1.0, seconds=5.0)
    two = summary(Counter({"": 9, "cut off": 1}), [2_000_000] * 180, [200_000_000] * 9, cpu_s=2.0, seconds=5.0)
    done = row("router", 10, [Turn(one, cpu_s=0.02, grown_mb=0.3), Turn(two, cpu_s=0.009, grown_mb=0.0)])
    assert (done.cpu_us_per_chunk, done.kb_per_stream) == (50.0, 30.0)
    assert (done.streams, done.failed, done.generator_share) == (20, {"cut off": 1}, 0.4)
