"""The HTTP client against a raw server that sends exactly what a test tells it, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.upstream.http1 import BrokenResponse, ConnectFailed, Connection, Origin, Pool

REQUEST = b"POST /v1 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
SOON_S, LONG_S = 0.1, 20.0

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request on a connection with the next of `answers`, the last one again and again."""

    def __init__(self, *answers: bytes, close: bool = False, pieces: int = 1 << 20) -> None:
        self.answers, self.close, self.pieces = answers, close, pieces
        self.connections = self.closed = self.requests = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"{}")
                answer = self.answers[min(self.requests, len(self.answers) - 1)]
                self.requests += 1
                for start in range(0, len(answer), self.pieces):
                    writer.write(answer[start : start + self.pieces])
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            writer.close()


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[tuple[Pool, Origin]]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    pool = Pool()
    try:
        yield pool, Origin.of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        await pool.close()
        server.close()


def by(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def read_all(connection: Connection) -> bytes:
    parts = []
    while part := await connection.read(by(LONG_S)):
        parts.append(part)
    return b"".join(parts)


async def take(pool: Pool, origin: Origin, connect_s: float) -> Connection:
    return pool.spare(origin) or await pool.connect(origin, connect_s)


async def ask(pool: Pool, origin: Origin) -> tuple[int, bytes]:
    connection = await take(pool, origin, LONG_S)
    try:
        connection.send(REQUEST)
        await connection.head(by(LONG_S))
        return connection.status, await read_all(connection)
    finally:
        connection.release()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a", Origin(secure=False, host="a", port=80)),
        ("https://a/v1", Origin(secure=True, host="a", port=443)),
        ("http://[::1]:8000/v1", Origin(secure=False, host="::1", port=8000)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, expected: Origin) -> None:
    assert Origin.of(url) == expected


@pytest.mark.parametrize(("answer", "body"), [(WHOLE, b"hello"), (CHUNKED, b"hello world")])
@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 1000])
async def test_an_answer_is_the_same_however_the_network_cuts_it(answer: bytes, body: bytes, pieces: int) -> None:
    server = Server(answer, pieces=pieces)
    async with serving(server.talk) as (pool, origin):
        assert [await ask(pool, origin) for _ in range(3)] == [(200, body)] * 3
    assert server.connections == 1


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n", close=True)
    async with serving(server.talk) as (pool, origin):
        assert [await ask(pool, origin) for _ in range(2)] == [(200, b"data: 1\n\n")] * 2
    assert server.connections == 2


async def test_an_interim_answer_is_not_the_answer() -> None:
    server = Server(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE)
    async with serving(server.talk) as (pool, origin):
        assert await ask(pool, origin) == (200, b"hello")


async def test_an_answer_without_a_body_frees_its_connection() -> None:
    server = Server(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with serving(server.talk) as (pool, origin):
        assert [await ask(pool, origin) for _ in range(2)] == [(204, b"")] * 2
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        CHUNKED[:-9],
        b"SSH-2.0-nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot-a-size\r\n",
    ],
)
async def test_what_breaks_off_or_is_not_http_is_told_and_never_used_again(answer: bytes) -> None:
    server = Server(answer, WHOLE, close=True)
    async with serving(server.talk) as (pool, origin):
        with pytest.raises(BrokenResponse):
            await ask(pool, origin)
        assert await ask(pool, origin) == (200, b"hello")
    assert server.connections == 2


async def test_what_arrived_before_a_break_is_read_first() -> None:
    server = Server(CHUNKED[:-9], close=True)
    async with serving(server.talk) as (pool, origin):
        connection = await take(pool, origin, LONG_S)
        connection.send(REQUEST)
        await connection.head(by(LONG_S))
        await until(lambda: server.closed == 1)
        assert (await connection.read(by(LONG_S))).startswith(b"hello")
        with pytest.raises(BrokenResponse):
            await connection.read(by(LONG_S))
        connection.release()


async def test_a_peer_that_asks_to_close_is_not_asked_again() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")
    async with serving(server.talk) as (pool, origin):
        assert [await ask(pool, origin) for _ in range(2)] == [(200, b"hello")] * 2
    assert server.connections == 2


async def test_an_idle_connection_that_the_peer_closed_is_passed_over() -> None:
    server = Server(WHOLE, close=True)
    async with serving(server.talk) as (pool, origin):
        await ask(pool, origin)
        await until(lambda: server.closed == 1)
        await asyncio.sleep(0.01)
        assert await ask(pool, origin) == (200, b"hello")


async def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    server = Server(WHOLE + b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n", WHOLE, pieces=len(WHOLE))
    async with serving(server.talk) as (pool, origin):
        assert await ask(pool, origin) == (200, b"hello")
        await until(lambda: server.closed == 1)
        assert await ask(pool, origin) == (200, b"hello")


async def test_silence_before_the_head_and_within_the_body_is_a_timeout() -> None:
    server = Server(b"", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello")
    async with serving(server.talk) as (pool, origin):
        for silent_in_body in (False, True):
            connection = await take(pool, origin, LONG_S)
            connection.send(REQUEST)
            if silent_in_body:
                await connection.head(by(LONG_S))
                assert await connection.read(by(LONG_S)) == b"hello"
            with pytest.raises(TimeoutError):
                await (connection.read(by(SOON_S)) if silent_in_body else connection.head(by(SOON_S)))
            connection.release()
        await until(lambda: server.closed == 2)


async def test_a_deadline_that_moves_on_with_each_part_is_kept_by_one_timer() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(SOON_S)
            writer.write(b"x")
        writer.close()

    async with serving(drip) as (pool, origin):
        connection = await take(pool, origin, LONG_S)
        connection.send(REQUEST)
        await connection.head(by(LONG_S))
        body = b""
        while part := await connection.read(by(10 * SOON_S)):
            body += part
        connection.release()
    assert body == b"xxxxxx"


async def test_a_reader_that_leaves_early_closes_the_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello")
    async with serving(server.talk) as (pool, origin):
        connection = await take(pool, origin, LONG_S)
        connection.send(REQUEST)
        await connection.head(by(LONG_S))
        connection.release()
        await until(lambda: server.closed == 1)


async def test_cancelled_callers_leave_no_connection_behind() -> None:
    server = Server(b"")
    async with serving(server.talk) as (pool, origin):
        tasks = [asyncio.create_task(ask(pool, origin)) for _ in range(200)]
        await asyncio.sleep(0.05)
        for number, task in enumerate(tasks):
            task.cancel()
            if number % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: server.closed == server.connections)


async def test_a_slow_reader_slows_the_sender() -> None:
    size = 64_000_000
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(500_000))
            await writer.drain()
            sent += 500_000
        writer.close()

    async with serving(flood) as (pool, origin):
        connection = await take(pool, origin, LONG_S)
        connection.send(REQUEST)
        await connection.head(by(LONG_S))
        await asyncio.sleep(0.3)
        assert sent < size // 2
        assert len(await read_all(connection)) == size
        connection.release()


async def test_nobody_listening_and_no_such_name_are_told_apart_from_a_timeout() -> None:
    async with serving(Server(WHOLE).talk) as (pool, origin):
        pass
    for nowhere in (origin, Origin(secure=False, host="no-such-host.invalid", port=80)):
        with pytest.raises(ConnectFailed):
            await take(pool, nowhere, LONG_S)


async def test_tls_with_a_peer_that_speaks_none_fails_to_connect() -> None:
    async with serving(Server(WHOLE).talk) as (pool, origin):
        with pytest.raises((ConnectFailed, TimeoutError)):
            await take(pool, Origin(secure=True, host=origin.host, port=origin.port), 0.5)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8), cuts=st.lists(st.integers(1, 400), max_size=12))
def test_any_body_in_any_chunks_over_any_network_is_read_back(parts: list[bytes], cuts: list[int]) -> None:
    class Transport(asyncio.Transport):
        def abort(self) -> None: ...

    async def run() -> bytes:
        connection = Connection(Pool(), Origin.of("http://x"), asyncio.get_running_loop())
        connection.connection_made(Transport())
        connection._busy = True
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
        for start, stop in pairwise(edges):
            connection.data_received(wire[start:stop])
        await connection.head(by(LONG_S))
        return await read_all(connection)

    assert asyncio.run(run()) == b"".join(parts)
